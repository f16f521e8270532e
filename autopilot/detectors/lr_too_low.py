"""A run that creeps: straight, noiseless descent under tiny updates."""

from math import isfinite, log, sqrt

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import LOSS, LR, LR_PLANNED, UPDATE_RATIO

LIMIT = 2e-3
WINDOW = 40
LONGEST = 80
FASTEST = 8e-3
SIGNAL = 6.0
SECOND_HALF = 0.7
LEVERAGE = 10.0
FROM_START = 10
STILL_LIMIT = 5e-3
STILL_WINDOW = 15
_EVERY = 5
_FLAT_UP = 1.02
_FLAT_DOWN = 0.8


class LRTooLow(BaseDetector):
    """Report a rate that is too low: only where every sign agrees.

    Fine-tuning moves weights by 1e-5 to 1e-4 a step and is healthy, so a small update ratio proves
    nothing by itself. Asked for are: a run seen from its start; a ratio below 2e-3 for forty rows;
    a planned rate that is neither warming up nor decayed below 0.8 of its highest; and a log loss
    that falls in a straight line, by six times its noise over the last 40 to 80 rows (a noisy
    descent takes longer to prove), by at most 0.8 % a row, its second half no slower than
    0.7 of its first. Where each step tells so clearly that the next may be larger,
    raising the rate in place is safe (measured: -0.88 to -1.00 nats at 10 to 50 times).

    A loss that falls ten times as fast as the weights move has found what it needs in them, as in
    fine-tuning, and is left alone.

    Once found, and until the ratio is above 5e-3, a raise that was not enough is reported after 15
    rows, as long as the loss keeps falling.

    Compare the learning-rate range test, Smith 2017, arXiv 1506.01186.

    >>> detector = LRTooLow()
    >>> rows = [
    ...     Row(s, {"loss": 4.6 - 0.01 * s, "lr": 1e-5, "lr_planned": 1e-5, "update_ratio": 6e-4})
    ...     for s in range(60)
    ... ]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('lr_too_low', 39)]
    """

    __slots__ = (
        "_found",
        "_from_start",
        "_highest",
        "_latch",
        "_losses",
        "_lr",
        "_ratio",
        "_rows",
        "_seen",
    )
    name = "lr_too_low"
    metrics: tuple[str, ...] = (UPDATE_RATIO, LOSS)
    _kept = __slots__

    def __init__(self) -> None:
        # Outlives a reset: whether this run was ever seen from its start is no baseline.
        self._seen = False
        self._from_start = False
        self._found = False
        super().__init__()

    def _clear(self) -> None:
        self._rows = 0
        self._ratio = 1.0
        self._lr = 0.0
        self._highest = 0.0
        self._losses: list[float] = []
        self._latch = Latch(calm=10)

    def update(self, row: Row) -> Finding | None:
        if not self._seen:
            self._seen = True
            self._from_start = row.step <= FROM_START
        if not self._from_start:
            return None
        limit = STILL_LIMIT if self._found else LIMIT
        ratio = row.values.get(UPDATE_RATIO)
        if ratio is not None:
            self._ratio = ratio
            if not 0.0 < ratio < limit:
                self._rows = 0
                self._losses.clear()
        if not 0.0 < self._ratio < limit:
            return None
        return self._creeping(row)

    def _creeping(self, row: Row) -> Finding | None:
        values = row.values
        loss = values.get(LOSS)
        lr = values.get(LR_PLANNED, values.get(LR))
        if loss is None or lr is None or not isfinite(loss) or loss <= 0.0:
            return None
        losses = self._losses
        self._highest = max(self._highest, lr)
        if not self._lr or lr > _FLAT_UP * self._lr:
            self._lr = lr
            self._rows = 0
            losses.clear()
        losses.append(log(loss))
        if len(losses) > LONGEST:
            losses.pop(0)
        self._rows += 1
        window = STILL_WINDOW if self._found else WINDOW
        if self._rows < window or self._rows % _EVERY or lr < _FLAT_DOWN * self._highest:
            return None
        signal = self._signal()
        if not self._latch.step(signal >= (0.0 if self._found else SIGNAL)):
            return None
        self._found = True
        return self._finding(
            row,
            "lr_too_low",
            "alarm",
            "warn",
            metric=UPDATE_RATIO,
            score=LIMIT / self._ratio,
            message=f"one step changes the weights by {self._ratio:.2g} of their norm, and over "
            f"{len(losses)} rows the loss falls steadily, by {signal:.2g} times its noise",
            evidence=evidence_of(row, LOSS, LR, UPDATE_RATIO),
        )

    def _signal(self) -> float:
        losses = self._losses
        if self._found:
            return fall(losses)
        slope, _ = _line(losses[-WINDOW:])
        if -slope > LEVERAGE * self._ratio:
            return 0.0
        return max(straightness(losses), straightness(losses[-WINDOW:]))


def fall(values: list[float]) -> float:
    """The fall of a series along its least-squares line over the noise around it; negative: a rise.

    >>> fall([2.0, 1.9, 1.85, 1.7]) > 0 > fall([1.7, 1.8, 1.95, 2.0])
    True
    """
    slope, noise = _line(values)
    return -slope * len(values) / max(noise, 1e-12)


def straightness(values: list[float]) -> float:
    """The fall of a series along its least-squares line over the noise around it.

    0 where it does not fall, where it falls by over 0.8 % a row (that is not creeping),
    or where its second half falls slower than 0.7 of its first.

    >>> straightness([5.0 - 0.001 * i for i in range(40)]) > 100
    True
    >>> straightness([1.0 / (1 + i) for i in range(40)])
    0.0
    """
    count = len(values)
    slope, noise = _line(values)
    half = count // 2
    first, _ = _line(values[:half])
    second, _ = _line(values[half:])
    if slope >= 0.0 or slope < -FASTEST or second > SECOND_HALF * first:
        return 0.0
    return -slope * count / max(noise, 1e-6)


def _line(values: list[float]) -> tuple[float, float]:
    count = len(values)
    middle = 0.5 * (count - 1)
    mean = sum(values) / count
    spread = count * (count * count - 1) / 12.0
    slope = sum((i - middle) * value for i, value in enumerate(values)) / spread
    rest = sum((value - mean - slope * (i - middle)) ** 2 for i, value in enumerate(values))
    return slope, sqrt(rest / max(count - 2, 1))
