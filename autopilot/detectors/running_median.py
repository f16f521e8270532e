"""The long median of a positive metric in constant memory."""

from math import exp, log

from autopilot.detectors.base import Stateful

_FIRST = 31
_STEP = 0.004  # about 170 rows to follow a doubling: far slower than what a detector waits for


class RunningMedian(Stateful):
    """Median of the first rows, then one that takes a small step toward each new value.

    The frugal streaming median, in the log so that a unit does not matter: Ma, Muthukrishnan and
    Sandler 2013, "Frugal Streaming for Estimating Quantiles", arXiv 1407.1121.

    >>> median = RunningMedian()
    >>> for value in [1.0, 2.0, 3.0] * 11:
    ...     median.add(value)
    >>> round(median.value, 1)
    2.0
    """

    __slots__ = ("_first", "value")
    _kept = ("_first", "value")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._first: list[float] = []
        self.value = 0.0

    @property
    def ready(self) -> bool:
        """Whether enough values were seen for the median to mean something."""
        return self.value > 0.0

    def add(self, value: float) -> None:
        """Take in one finite value; values that are not positive are left out."""
        if value <= 0.0:
            return
        median = self.value
        if median > 0.0:
            self.value = median * (_UP if value > median else _DOWN)
            return
        self._first.append(value)
        if len(self._first) >= _FIRST:
            self.value = exp(log(sorted(self._first)[_FIRST // 2]))
            self._first = []


_UP = exp(_STEP)
_DOWN = exp(-_STEP)
