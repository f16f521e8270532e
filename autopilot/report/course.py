"""One pass over a run's rows: how its loss went, and what metrics were before interventions."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from autopilot.report.model import Course, CoursePoint, Mark
from autopilot.schema import Row, metrics

POINTS = 360
"""Most points that a picture shows."""
_BEFORE = 50
"""Rows before an intervention that are its "before", as for the bound of a canary."""


@dataclass(frozen=True)
class Moment:
    """When something was applied, and the metric to look at before it."""

    label: str
    at: float
    metric: str


@dataclass
class Pass:
    """What one pass over the rows saw.

    Attributes:
        course: Of the loss within the time; None where no loss was reported in it.
        before: By the label of a moment, the median of its metric before it.
        trained: Steps within the time; an evaluation's row belongs to the step before it.
        seconds: From the first of its rows to the last.
        deepest: The last step made on each branch.
    """

    course: Course | None = None
    before: dict[str, float] = field(default_factory=dict)
    trained: int = 0
    seconds: float = 0.0
    deepest: dict[str, int] = field(default_factory=dict)


def read_rows(rows: Iterable[Row], moments: Sequence[Moment], since: float) -> Pass:
    """Read rows once, in the order in which they were made, in bounded memory.

    Args:
        rows: All there are; a median before a moment may reach back before ``since``.
        moments: In order of time.
        since: Beginning of the time reported on, in seconds since the epoch.
    """
    found, thinned = Pass(), _Thinned()
    recent = {moment.metric: deque[float](maxlen=_BEFORE) for moment in moments}
    waiting, marks = deque(moments), []
    began = ended = 0.0
    for row in rows:
        while waiting and waiting[0].at < row.time:
            _note(found, waiting[0], recent)
            marks.append((thinned.count, waiting.popleft().label))
        again = found.deepest.get(row.branch) == row.step
        found.deepest[row.branch] = row.step
        for name, values in recent.items():
            if math.isfinite(value := row.values.get(name, math.nan)):
                values.append(value)
        if row.time < since:
            continue
        began, ended = (began if found.trained else row.time), row.time
        found.trained += not again
        if metrics.LOSS in row.values:
            thinned.add(row.step, row.values[metrics.LOSS])
    for moment in waiting:
        _note(found, moment, recent)
        marks.append((thinned.count, moment.label))
    found.seconds = ended - began
    found.course = thinned.course(marks)
    return found


def _note(found: Pass, moment: Moment, recent: dict[str, deque[float]]) -> None:
    if values := recent[moment.metric]:
        found.before[moment.label] = median(values)


@dataclass
class _Bucket:
    """A point that grows; with no finite value its bounds are the wrong way round."""

    step: int
    low: float = math.inf
    high: float = -math.inf
    finite: bool = True

    def join(self, other: "_Bucket") -> None:
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.finite = self.finite and other.finite

    def point(self) -> CoursePoint:
        known = self.low <= self.high
        return CoursePoint(
            step=self.step,
            low=self.low if known else None,
            high=self.high if known else None,
            finite=self.finite,
        )


class _Thinned:
    """Lowest and highest of every so many values; of twice as many once there are too many."""

    def __init__(self) -> None:
        self.count = 0
        self._size = 1
        self._buckets: list[_Bucket] = []
        self._first = self._last = math.nan

    def add(self, step: int, value: float) -> None:
        if not self.count % self._size:
            if len(self._buckets) == 2 * POINTS:
                self._halve()
            self._buckets.append(_Bucket(step))
        bucket = self._buckets[-1]
        if not math.isfinite(value):
            bucket.finite = False
        else:
            bucket.low = min(bucket.low, value)
            bucket.high = max(bucket.high, value)
        self._first = self._first if self.count else value
        self._last = value
        self.count += 1

    def course(self, marks: Iterable[tuple[int, str]]) -> Course | None:
        """The whole course; marks stand at the number of values that came before them."""
        if not self._buckets:
            return None
        while len(self._buckets) > POINTS:
            self._halve()
        return Course(
            metric=metrics.LOSS,
            points=tuple(bucket.point() for bucket in self._buckets),
            # What was applied before the time reported on has no place in its picture.
            marks=tuple(
                Mark(point=(count - 1) // self._size, label=label)
                for count, label in marks
                if count
            ),
            first=self._first,
            last=self._last,
        )

    def _halve(self) -> None:
        kept = self._buckets[::2]
        for one, other in zip(kept, self._buckets[1::2], strict=False):
            one.join(other)
        self._buckets = kept
        self._size *= 2
