"""What happened in one recorded run, gathered for drawing: its rows, and every mark at its row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autopilot.schema import Finding, Row
from autopilot_agents.rules import ObserveAgent
from autopilot_evals.corpus import LabelledRun
from autopilot_evals.replay import replay
from autopilot_evals.scoring.matching import Alarm, Matching, match
from autopilot_evals.suites.answers import RunAnswers, Said
from autopilot_evals.suites.detection import ACTING, OURS, RunAlarms


class Mark(NamedTuple):
    """Something that was said at a row.

    Attributes:
        row: Position of the row in the recording.
        text: What was said, in a word or two.
    """

    row: int
    text: str


@dataclass(frozen=True)
class Course:
    """A run with all that was said of it.

    Attributes:
        findings: Of every tier, each at the row of its step.
        lanes: Marks by who made them, in the order in which they are drawn.
    """

    run: LabelledRun
    rows: tuple[Row, ...]
    matching: Matching
    findings: tuple[tuple[int, Finding], ...]
    lanes: dict[str, tuple[Mark, ...]]

    def metric_of(self, alarm: Alarm) -> str | None:
        """The metric in which an alarm saw something, if a finding at its row says so."""
        said = [one for row, one in self.findings if row == alarm.row and one.kind == alarm.kind]
        return said[0].metric if said else None


def read_course(run: LabelledRun, seen: RunAlarms, answers: Mapping[str, RunAnswers]) -> Course:
    """Read a run once more, for its rows and for what its detectors find.

    Args:
        run: The run.
        seen: What was raised over it.
        answers: What each agent said to it, by the agent's name.

    Raises:
        BadInput: The recording cannot be read.
    """
    recorded = run.open()
    rows = tuple(recorded.rows())
    findings = tuple(_placed(replay(recorded, ObserveAgent()).findings, rows))
    lanes = {
        "finding": tuple(Mark(row, one.kind) for row, one in findings),
        "alarm": _marks(seen.alarms[OURS]),
        "to act": _marks(seen.alarms[ACTING]),
    }
    return Course(
        run=run,
        rows=rows,
        matching=match(seen.steps, run.labels.episodes, seen.alarms[OURS]),
        findings=findings,
        lanes=lanes | {agent: _proposals(one) for agent, one in answers.items()},
    )


def _placed(findings: Iterable[Finding], rows: Sequence[Row]) -> Iterable[tuple[int, Finding]]:
    at = {(row.branch, row.step): position for position, row in enumerate(rows)}
    for one in findings:
        if (one.branch, one.step) in at:
            yield at[one.branch, one.step], one


def _marks(alarms: Sequence[Alarm]) -> tuple[Mark, ...]:
    return tuple(Mark(alarm.row, alarm.kind or "") for alarm in alarms)


def _proposals(answers: RunAnswers) -> tuple[Mark, ...]:
    return tuple(Mark(one.row, _words(one)) for one in answers.said)


def _words(one: Said) -> str:
    """What was proposed and what the guard said; in brackets once the run would have left."""
    said = f"{one.answer}: {one.verdict}"
    return f"({said})" if one.hypothetical else said
