"""What an agent is shown of a run: robust statistics and a tail-dense table around one episode.

Language models and people read series poorly. They get one line of statistics a metric, and a
table that shows the last steps one by one and older ones as medians over growing buckets.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import median

from autopilot.ports import Run
from autopilot.schema import (
    Episode,
    MetricSummary,
    ProposalRecord,
    Row,
    TableRow,
    Window,
    metrics,
)

ROWS = 512
"""Rows that a window looks back on."""
_TAIL = 12
_SLOPE_ROWS = 100
_HISTORY = 20

SHOWN = (
    metrics.LOSS,
    metrics.VAL_LOSS,
    metrics.GRAD_NORM,
    metrics.LR,
    metrics.LR_PLANNED,
    metrics.UPDATE_RATIO,
    metrics.SECOND_MOMENT_STALENESS,
    metrics.EPS_SHARE,
    metrics.WEIGHT_DECAY_RATE,
    metrics.PARAM_NORM,
    metrics.UPDATE_SKIPPED,
    metrics.LOSS_SCALE,
    metrics.STEP_TIME,
)
"""Metrics that a window shows first, in this order; others follow by name."""


def build_window(run: Run, episode: Episode | None) -> Window:
    """Everything an agent needs to decide about an episode, as of now."""
    rows = run.rows(last=ROWS)
    names = _names(rows)
    return Window(
        run=run.info(),
        episode=episode,
        findings=tuple(run.findings(episode.id)) if episode is not None else (),
        summaries=tuple(summarise(name, rows) for name in names),
        table=tail_dense(rows, names),
        checkpoints=tuple(run.checkpoints()),
        history=_relevant(run.proposals(), episode),
    )


def _names(rows: Iterable[Row]) -> list[str]:
    seen = {name for row in rows for name in row.values} - {metrics.BATCH_DIGEST}
    return [name for name in SHOWN if name in seen] + sorted(seen.difference(SHOWN))


def _relevant(
    records: Sequence[ProposalRecord], episode: Episode | None
) -> tuple[ProposalRecord, ...]:
    """What was tried for this episode, and the latest besides."""
    latest = {record.id for record in records[-_HISTORY:]}
    own = episode.id if episode is not None else None
    return tuple(
        r for r in records if r.id in latest or (own is not None and r.proposal.episode == own)
    )


def summarise(name: str, rows: Sequence[Row]) -> MetricSummary:
    """Robust statistics of one metric; non-finite values are counted, never averaged.

    The slope is Theil and Sen's over the last 100 values, thinned: the median of all slopes
    between pairs, per 100 steps.
    """
    points = [(row.step, row.values[name]) for row in rows if name in row.values]
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    values = [value for _, value in finite]
    middle = median(values) if values else math.nan
    return MetricSummary(
        metric=name,
        count=len(points),
        last=points[-1][1] if points else math.nan,
        median=middle,
        mad=median(abs(v - middle) for v in values) if values else math.nan,
        minimum=min(values, default=math.nan),
        maximum=max(values, default=math.nan),
        slope_per_100=_slope(finite[-_SLOPE_ROWS:]),
        non_finite=len(points) - len(finite),
    )


def _slope(points: Sequence[tuple[int, float]]) -> float:
    thinned = points[:: max(1, len(points) // 25)]
    slopes = [
        (later - earlier) / (to - begin)
        for i, (begin, earlier) in enumerate(thinned)
        for to, later in thinned[i + 1 :]
        if to != begin
    ]
    return 100 * median(slopes) if slopes else 0.0


def tail_dense(rows: Sequence[Row], names: Sequence[str]) -> tuple[TableRow, ...]:
    """The last rows one by one, then medians over buckets that double in size; oldest first."""
    buckets: list[Sequence[Row]] = [[row] for row in reversed(rows[-_TAIL:])]
    end, size = max(len(rows) - _TAIL, 0), 4
    while end > 0:
        begin = max(0, end - size)
        buckets.append(rows[begin:end])
        end, size = begin, size * 2
    return tuple(_line(bucket, names) for bucket in reversed(buckets))


def _line(bucket: Sequence[Row], names: Sequence[str]) -> TableRow:
    values = {}
    for name in names:
        found = [row.values[name] for row in bucket if name in row.values]
        finite = [value for value in found if math.isfinite(value)]
        if found:
            values[name] = median(finite) if finite else found[-1]
    return TableRow(first_step=bucket[0].step, last_step=bucket[-1].step, values=values)
