"""What an agent is shown of a run."""

from pydantic import Field

from autopilot.schema.base import Number, Record
from autopilot.schema.decisions import ProposalRecord
from autopilot.schema.run import CheckpointInfo, RunInfo
from autopilot.schema.signals import Episode, Finding


class MetricSummary(Record):
    """Robust statistics of one metric over the window."""

    metric: str
    count: int
    last: Number
    median: Number
    mad: Number
    minimum: Number
    maximum: Number
    slope_per_100: Number
    non_finite: int


class TableRow(Record):
    """One line of the tail-dense table: a step, or a bucket of steps by its medians."""

    first_step: int
    last_step: int
    values: dict[str, Number]


class Window(Record):
    """What an agent is shown: the run, one episode, figures around it, and what was tried."""

    run: RunInfo
    episode: Episode | None
    findings: tuple[Finding, ...]
    summaries: tuple[MetricSummary, ...]
    table: tuple[TableRow, ...]
    checkpoints: tuple[CheckpointInfo, ...]
    history: tuple[ProposalRecord, ...] = Field(default=())
