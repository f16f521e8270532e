"""One finding for one sickness, not one a row."""

from autopilot.detectors.base import Stateful

REPEAT_AFTER = 50
"""Rows after which a sickness that lasts is reported again."""


class Latch(Stateful):
    """Says when to report: on the first sick row, then seldom, until health has returned.

    Args:
        calm: Healthy rows in a row after which the next sickness counts as a new one.
        repeat: Sick rows between two reports of one sickness.

    >>> latch = Latch(calm=2, repeat=3)
    >>> [latch.step(sick) for sick in (False, True, True, True, True, False, True)]
    [False, True, False, False, True, False, False]
    """

    __slots__ = ("_calm", "_calm_rows", "_repeat", "_since", "on")
    _kept = ("on", "_since", "_calm_rows")

    on: bool
    _since: int
    _calm_rows: int

    def __init__(self, calm: int = 10, repeat: int = REPEAT_AFTER) -> None:
        self._calm = calm
        self._repeat = repeat
        self._clear()

    def _clear(self) -> None:
        self.on = False
        self._since = 0
        self._calm_rows = 0

    def step(self, sick: bool) -> bool:
        """Count one row; True if it should be reported."""
        if sick:
            self._calm_rows = 0
            if not self.on:
                self.on = True
                self._since = 0
                return True
            self._since += 1
            if self._since >= self._repeat:
                self._since = 0
                return True
        elif self.on:
            self._calm_rows += 1
            if self._calm_rows >= self._calm:
                self._clear()
        return False
