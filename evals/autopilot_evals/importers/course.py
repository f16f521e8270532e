"""Tells a run that went back from rows that were merely written late."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal

from autopilot_evals.importers.names import is_bookkeeping, is_held_out, known_metric

Place = Literal["next", "same", "late", "back"]

_SIGNATURES: Final = 4_096


class Course:
    """Follows the steps of one recording.

    A run went back where a metric that sets its pace is recorded again at a step it had reached
    before. A metric sets the pace if it is recorded at least half as often as any other so far and
    belongs to training: epochs and durations never do, and neither do evaluations, unless the
    recording holds nothing else. Any other row behind the newest one was written late.

    Args:
        training: Whether the recording holds metrics of training steps.

    >>> course = Course(training=True)
    >>> [course.place(s, m) for s, m in [(0, ["loss"]), (50, ["loss"]), (50, ["lr"]),
    ...     (49, ["val_loss"]), (100, ["loss"]), (50, ["loss"]), (60, ["loss"])]]
    ['next', 'next', 'same', 'late', 'next', 'back', 'next']
    """

    def __init__(self, *, training: bool) -> None:
        self.step = -1
        self._last: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._most = 0
        self._training = training

    def place(self, step: int, columns: Iterable[str]) -> Place:
        """Where a row stands relative to those before it."""
        pacing = _pacing(tuple(columns), self._training)
        place: Place = "next"
        if step == self.step:
            place = "same"
        elif step < self.step:
            place = "back" if any(self._passed(name, step) for name in pacing) else "late"
        if place == "back":
            self._last.clear()
        if place != "late":
            self.step = step
        last, counts = self._last, self._counts
        for name in pacing:
            if place != "late" or step > last.get(name, -1):
                last[name] = step
            counts[name] = count = counts.get(name, 0) + 1
            if count > self._most:
                self._most = count
        return place

    def _passed(self, name: str, step: int) -> bool:
        return step <= self._last.get(name, -1) and 2 * self._counts[name] >= self._most


@lru_cache(_SIGNATURES)
def _pacing(columns: tuple[str, ...], training: bool) -> tuple[str, ...]:
    """Which columns of a row may set the pace."""
    of_evaluation = training and any(is_held_out(name) for name in columns)
    return tuple(
        name
        for name in columns
        if not is_bookkeeping(name)
        and not (training and is_held_out(name))
        and (not of_evaluation or known_metric(name) is not None)
    )
