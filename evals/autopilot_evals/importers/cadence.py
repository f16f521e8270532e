"""How often a recording has a row, and where it has none."""

from collections import Counter
from typing import Final

from autopilot.schema import Row

_GAP: Final = 10
"""A gap is a spacing of more than so many times the median."""
_REGULAR: Final = 0.9
_IRREGULAR: Final = 0.3
"""Below this share of spacings at the median there is no cadence to speak of."""


class Cadence:
    """Counts the spacings between rows of a branch; its size does not grow with them."""

    def __init__(self) -> None:
        self._rows = 0
        self._first = self._highest = 0
        self._last: tuple[str, int] | None = None
        self._spacings: Counter[int] = Counter()
        self._longest = (0, 0)

    def add(self, row: Row) -> None:
        """Count a row."""
        if self._last is None:
            self._first = row.step
        elif self._last[0] == row.branch and row.step > self._last[1]:
            spacing = row.step - self._last[1]
            # Three digits are enough for a median, and bound how many counters there can be.
            self._spacings[spacing if spacing < 1000 else int(float(f"{spacing:.3g}"))] += 1
            self._longest = max(self._longest, (spacing, -self._last[1]))
        self._rows += 1
        self._highest = max(self._highest, row.step)
        self._last = row.branch, row.step

    @property
    def median(self) -> int | None:
        """The median spacing in steps, to three digits; None with fewer than two rows."""
        left = (self._spacings.total() + 1) // 2
        for spacing, count in sorted(self._spacings.items()):
            left -= count
            if left <= 0:
                return spacing
        return None

    def told(self) -> str:
        """One line for people."""
        line = f"{self._rows:,} rows, steps {self._first:,} to {self._highest:,}"
        median = self.median
        if median is None:
            return line
        total = self._spacings.total()
        line += f", every {median:,} (median)"
        share, low, high = self._spacings[median] / total, min(self._spacings), max(self._spacings)
        if share < _IRREGULAR:
            line += f", irregular: from {low:,} to {high:,}"
        elif share < _REGULAR:
            line += f", mixed: {share:.0%} at that spacing, others {low:,} to {high:,}"
        gaps = sum(count for spacing, count in self._spacings.items() if spacing > _GAP * median)
        if gaps:
            spacing, after = self._longest
            line += f"; gaps of over {_GAP} times that: {gaps:,}, "
            line += f"the longest {spacing:,} steps after step {-after:,}"
        return line
