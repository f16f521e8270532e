"""Suggested labels: what the run's own detectors make of a recording, for a person to correct."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from statistics import median, median_low
from typing import Final

from autopilot.recording import RecordedRun
from autopilot.schema import Finding, FindingKind, metrics
from autopilot_agents.rules import ObserveAgent
from autopilot_evals.labels import EventKind, LabelledEvent, Signal
from autopilot_evals.replay import ReplayReport, replay

_EFFECTS: Final[tuple[tuple[FindingKind, EventKind], ...]] = (
    ("non_finite", "nan"),
    ("collapse", "collapse"),
    ("divergence", "divergence"),
    ("slow_drift", "divergence"),
    ("loss_spike", "spike"),
    ("grad_spike", "spike"),
)
"""What happened to the loss, the worst first: it names the event, whatever the cause was."""

_CAUSES: Final[dict[FindingKind, EventKind]] = {
    "plateau": "plateau",
    "overfit": "overfit",
    "stall": "stall",
    "throughput_drop": "stall",
    "lr_too_high": "lr_change",
    "lr_too_low": "lr_change",
    "no_warmup": "lr_change",
    "schedule_fault": "lr_change",
    "loss_scale_fault": "plateau",
    "dead_update": "plateau",
    "decay_too_high": "plateau",
    "dead_units": "collapse",
    "logit_growth": "divergence",
    "silent_corruption": "divergence",
    "data_repeat": "overfit",
    "bad_shard": "spike",
}
"""What comes nearest where the loss shows nothing."""

SERIES: Final = (metrics.LOSS, metrics.ACCURACY, metrics.VAL_LOSS, metrics.GRAD_NORM)
"""What is shown of a run, the first that it has."""

_OUTLIER = 6.0


@dataclass(frozen=True)
class Suggestion:
    """An event that the detectors would label, and what they saw."""

    event: LabelledEvent
    why: str


@dataclass(frozen=True)
class Series:
    """One metric of a run, at the rows that have it.

    Attributes:
        last_step: The last step of the run.
    """

    metric: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    last_step: int


def suggest(recorded: RecordedRun) -> tuple[Suggestion, ...]:
    """One event an episode that the detectors open or watch, in order of onset.

    An episode that is not over when the recording is ends with it. What passed without an agent
    being asked, or was found benign, is suggested with low confidence.

    Raises:
        BadInput: The recording cannot be read.
    """
    report = replay(recorded, ObserveAgent())
    found = {finding.id: finding for finding in report.findings}
    return tuple(
        sorted(
            _suggestions(report, found),
            key=lambda suggestion: (suggestion.event.onset, suggestion.event.end),
        )
    )


def _suggestions(report: ReplayReport, found: dict[str | None, Finding]) -> Iterable[Suggestion]:
    for episode in report.episodes:
        findings = [found[one] for one in episode.findings if one in found]
        kind, signal = _what_happened(episode.kind, findings)
        last = episode.last_step if episode.status == "closed" else report.step
        sure = episode.alarm and episode.diagnosis != "benign"
        onset = min(episode.onset_step, last)
        event = LabelledEvent(
            kind=kind,
            signal=signal,
            onset=onset,
            end=max(last, onset),
            confidence="medium" if sure else "low",
        )
        why = findings[0].message if findings else episode.reason
        yield Suggestion(event, f"{episode.kind}, {episode.diagnosis}: {why}")


def _what_happened(
    kind: FindingKind, findings: Sequence[Finding]
) -> tuple[EventKind, Signal | None]:
    seen = {finding.kind: finding for finding in reversed(findings)}
    effect = next((pair for pair in _EFFECTS if pair[0] in seen or pair[0] == kind), None)
    if effect is None:
        return _CAUSES[kind], "data_outlier" if kind == "bad_shard" else None
    worst, event = effect
    if event != "spike":
        return event, None
    if worst == "grad_spike":
        return event, "grad_norm_only"
    of_reward = worst in seen and seen[worst].metric == metrics.ACCURACY
    return event, "reward" if of_reward else "loss"


def read_series(recorded: RecordedRun) -> Series | None:
    """The metric that a person labels a run by; None where rows hold none at all.

    It is the loss, or the first of :data:`SERIES` that the run has, or any that it has.
    """
    points: dict[str, tuple[list[int], list[float]]] = {}
    other, last = "", 0
    for row in recorded.rows():
        last = max(last, row.step)
        for name, value in row.values.items():
            other = other or name
            if name != other and name not in SERIES:
                continue
            steps, values = points.setdefault(name, ([], []))
            steps.append(row.step)
            values.append(value)
    metric = next((name for name in (*SERIES, *points) if name in points), None)
    if metric is None:
        return None
    steps, values = points[metric]
    return Series(metric, tuple(steps), tuple(values), last)


def outline(values: Sequence[float], width: int) -> list[float]:
    """So many values at most, each the median of its share, or the outlier that stands in it.

    A sparkline that picks every so many-th value shows no spike, and one of medians none either;
    this one shows every one, and a share with a value that is no number as NaN. An outlier is off
    by six times the noise, which is the median jump from one value to the next. Values beyond ten
    robust deviations of all are cut there, lest one blow-up flatten the rest.

    >>> outline([1.0, 1.0, 1.0, 9.0, 1.0, 1.0], 3)
    [1.0, 9.0, 1.0]
    """
    finite = [value for value in values if isfinite(value)]
    if not finite:
        return [float("nan")] * min(len(values), width)
    middle = median(finite)
    reach = 10.0 * 1.4826 * median(abs(value - middle) for value in finite) or float("inf")
    jumps = [abs(after - before) for before, after in pairwise(finite)]
    noise = median(jumps) if jumps else 0.0
    count = min(len(values), width)
    shares = (
        values[at * len(values) // count : (at + 1) * len(values) // count] for at in range(count)
    )
    # NaN comes first in both comparisons, so it passes.
    return [min(max(_shown(s, noise), middle - reach), middle + reach) for s in shares]


def _shown(share: Sequence[float], noise: float) -> float:
    if not all(isfinite(value) for value in share):
        return float("nan")
    usual = median_low(share)
    farthest = max(share, key=lambda value: abs(value - usual))
    return farthest if abs(farthest - usual) > _OUTLIER * noise else usual


def mark(series: Series, width: int, onset: int, end: int) -> str:
    """A line of ``^`` beneath an outline of that width, where the steps of an event are.

    >>> mark(Series("loss", (1, 2, 3, 4), (1.0, 1.0, 9.0, 1.0), 4), 4, 3, 3)
    '  ^'
    """
    count = min(len(series.values), width)
    total = len(series.values)
    line = ""
    for at in range(count):
        share = series.steps[at * total // count : (at + 1) * total // count]
        line += "^" if any(onset <= step <= end for step in share) else " "
    return line.rstrip()
