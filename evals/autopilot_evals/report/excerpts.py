"""Which part of a run a picture shows, and which of its series."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from autopilot.schema import Row
from autopilot.schema.metrics import ACCURACY, GRAD_NORM, LOSS, VAL_LOSS
from autopilot_evals.labels import LabelledEvent
from autopilot_evals.report.courses import Course, Mark
from autopilot_evals.scoring.matching import LATE, Alarm, Found

_LEAD = 120
"""Rows shown before an event: as many as detectors learn the noise from, and some more."""
_TAIL = 60
_FEW = 2
_DECADE = 10.0


@dataclass(frozen=True)
class Span:
    """A labelled event by the first and last row of it; ``main`` is what the picture is about."""

    first: int
    last: int
    main: bool


@dataclass(frozen=True)
class Excerpt:
    """What one picture shows.

    Attributes:
        metric: Name of the series; None where no figure lies in these rows.
        first: Position of the first row shown.
        steps: The step of every row shown.
        points: Position and value of every finite figure.
        broken: Positions at which the figure is NaN or infinite.
        logarithmic: The figures span more than ten times, and all are positive.
        focus: Position of the alarm that the picture is about.
    """

    metric: str | None
    first: int
    steps: tuple[int, ...]
    points: tuple[tuple[int, float], ...]
    broken: tuple[int, ...]
    logarithmic: bool
    spans: tuple[Span, ...]
    lanes: dict[str, tuple[Mark, ...]]
    focus: int | None

    @property
    def last(self) -> int:
        """Position of the last row shown."""
        return self.first + len(self.steps) - 1


def around_event(course: Course, found: Found) -> Excerpt:
    """The rows from before an event to past the rows in which it can be found."""
    span = _span(course.rows, found.event, found.onset_row, main=True)
    focus = None if found.alarm is None else found.alarm.row
    last = max(min(span.last, span.first + 2 * LATE), focus or 0)
    return _excerpt(course, span.first, last, focus, _candidates(found.event))


def around_alarm(course: Course, alarm: Alarm) -> Excerpt:
    """The rows around an alarm, in the metric that raised it."""
    metric = course.metric_of(alarm)
    wanted = (metric,) if metric is not None else ()
    return _excerpt(course, alarm.row, alarm.row + _TAIL, alarm.row, (*wanted, LOSS, ACCURACY))


def _candidates(event: LabelledEvent) -> tuple[str, ...]:
    """Metrics in which an event of its kind shows, the likeliest first."""
    if event.signal == "grad_norm_only":
        return GRAD_NORM, LOSS
    if event.signal == "reward" or event.kind == "collapse":
        return ACCURACY, LOSS
    if event.kind == "overfit":
        return VAL_LOSS, LOSS, ACCURACY
    return LOSS, ACCURACY, VAL_LOSS


def _excerpt(
    course: Course, begin: int, end: int, focus: int | None, candidates: Sequence[str]
) -> Excerpt:
    first, last = max(begin - _LEAD, 0), min(end + _TAIL, len(course.rows) - 1)
    shown = course.rows[first : last + 1]
    metric = _metric(shown, candidates)
    given = [
        (first + at, row.values[metric]) for at, row in enumerate(shown) if metric in row.values
    ]
    points = tuple((row, value) for row, value in given if isfinite(value))
    return Excerpt(
        metric=metric,
        first=first,
        steps=tuple(row.step for row in shown),
        points=points,
        broken=tuple(row for row, value in given if not isfinite(value)),
        logarithmic=_spans_a_decade([value for _, value in points]),
        spans=tuple(_spans_within(course, begin, first, last)),
        lanes={
            name: tuple(mark for mark in marks if first <= mark.row <= last)
            for name, marks in course.lanes.items()
        },
        focus=focus,
    )


def _metric(rows: Sequence[Row], candidates: Sequence[str]) -> str | None:
    """The first candidate with some figures here, else whatever has the most."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row.values:
            counts[name] = counts.get(name, 0) + 1
    known = next((name for name in candidates if counts.get(name, 0) >= _FEW), None)
    return known or max(counts, key=lambda name: counts[name], default=None)


def _spans_a_decade(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0.0 and max(values) > _DECADE * min(values)


def _spans_within(course: Course, begin: int, first: int, last: int) -> list[Span]:
    spans = [
        _span(course.rows, one.event, one.onset_row, main=one.onset_row == begin)
        for one in (*course.matching.found, *course.matching.others)
    ]
    return [span for span in spans if span.first <= last and span.last >= first]


def _span(rows: Sequence[Row], event: LabelledEvent, onset: int, *, main: bool) -> Span:
    """From the onset to the last row that is still within the event."""
    last = onset
    while last + 1 < len(rows) and rows[last + 1].step <= event.end:
        last += 1
    return Span(onset, last, main)
