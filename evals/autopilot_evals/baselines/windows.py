"""Rules against the recent past of the loss or the gradient norm."""

from collections import deque
from math import isfinite, log, sqrt
from statistics import fmean, median, pstdev

from autopilot.schema import Row
from autopilot.schema.metrics import GRAD_NORM, LOSS


class SixSigma:
    """A loss or gradient norm more than six standard deviations above the mean of the last 128.

    The skip-step optimizer of OLMo-core and Levanter: active from 64 values on; what it acts on
    enters the window too, so that a burst hides itself.

    >>> rule = SixSigma()
    >>> any(rule.update(Row(s, {"loss": 2.0 + 0.01 * (s % 3)})) for s in range(128))
    False
    >>> rule.update(Row(128, {"loss": 2.2}))
    True
    """

    name = "six_sigma"
    window, least, sigmas, floor = 128, 64, 6.0, 1e-6

    def __init__(self) -> None:
        self._past: dict[str, deque[float]] = {
            name: deque(maxlen=self.window) for name in (LOSS, GRAD_NORM)
        }

    def update(self, row: Row) -> bool:
        hits = [self._exceeds(name, row) for name in self._past if name in row.values]
        return any(hits)

    def _exceeds(self, name: str, row: Row) -> bool:
        value, past = row.values[name], self._past[name]
        hit = False
        if len(past) >= self.least:
            spread = max(_deviation(past), self.floor)
            hit = value - fmean(past) > self.sigmas * spread
        past.append(value)
        return hit


class RunningMeanFactor:
    """A loss at least twice its running mean on five rows running.

    KillLossSpike of llm-foundry: window of 100, or of 5 % of the run where that is known to be
    more; and a loss above the window's cap on half of it, the cap being the largest loss of the
    first window, at most 10.

    >>> rule = RunningMeanFactor()
    >>> rows = [Row(s, {"loss": 2.0 if s < 120 else 4.2}) for s in range(130)]
    >>> [row.step for row in rows if rule.update(row)][:1]
    [124]
    """

    name = "running_mean_factor"
    window, factor, patience, most = 100, 2.0, 5, 10.0

    def __init__(self) -> None:
        self._past: deque[float] = deque(maxlen=self.window)
        self._count = 0
        self._run = 0
        self._cap = 0.0

    def update(self, row: Row) -> bool:
        loss = row.values.get(LOSS)
        if loss is None:
            return False
        self._count += 1
        past = self._past
        full = len(past) == self.window
        self._run = self._run + 1 if full and loss >= self.factor * fmean(past) else 0
        past.append(loss)
        if self._count == self.window:
            self._cap = min(max(past), self.most)
        high = self._count > 2 * self.window and (
            sum(value > self._cap for value in past) >= self.window / 2
        )
        return self._run >= self.patience or high


class EMAZScore:
    """A gradient norm, or a loss where none is logged, whose z over running moments passes 2.5.

    ZClip (arXiv 2504.02507): mean and variance as exponential averages with alpha 0.97 after a
    warm-up of 25 values; the value that enters them is the clipped one, mean + 2.5²/z deviations.

    >>> rule = EMAZScore()
    >>> any(rule.update(Row(s, {"grad_norm": 1.0 + 0.1 * (s % 2)})) for s in range(60))
    False
    >>> rule.update(Row(60, {"grad_norm": 3.0}))
    True
    """

    name = "ema_z_score"
    alpha, warm_up, threshold = 0.97, 25, 2.5

    def __init__(self) -> None:
        self._metric: str | None = None
        self._first: list[float] = []
        self._mean = 0.0
        self._variance = 0.0

    def update(self, row: Row) -> bool:
        if self._metric != GRAD_NORM and GRAD_NORM in row.values:
            self._metric, self._first = GRAD_NORM, []
        elif self._metric is None and LOSS in row.values:
            self._metric = LOSS
        value = row.values.get(self._metric or LOSS)
        if value is None or not isfinite(value):
            return False
        if len(self._first) < self.warm_up:
            self._first.append(value)
            if len(self._first) == self.warm_up:
                self._mean, self._variance = fmean(self._first), pstdev(self._first) ** 2
            return False
        deviation = sqrt(self._variance) + 1e-6
        z = (value - self._mean) / deviation
        if z > self.threshold:
            value = self._mean + self.threshold**2 / z * deviation
        off = value - self._mean
        self._mean += (1.0 - self.alpha) * off
        self._variance = self.alpha * self._variance + (1.0 - self.alpha) * off * off
        return z > self.threshold


class RollingMAD:
    """A log loss more than eight robust deviations (MAD) above the median of the last hundred.

    What alert scripts beside public language-model runs use; healthy runs of 130 million to 1.2
    billion parameters were said to stay below 4.5.

    >>> rule = RollingMAD()
    >>> any(rule.update(Row(s, {"loss": 2.0 + 0.01 * (s % 5)})) for s in range(100))
    False
    >>> rule.update(Row(100, {"loss": 3.0}))
    True
    """

    name = "rolling_mad"
    window, least, threshold, floor = 100, 50, 8.0, 1e-4

    def __init__(self) -> None:
        self._past: deque[float] = deque(maxlen=self.window)

    def update(self, row: Row) -> bool:
        loss = row.values.get(LOSS)
        if loss is None or not isfinite(loss) or loss <= 0.0:
            return False
        value, past = log(loss), self._past
        hit = False
        if len(past) >= self.least:
            middle = median(past)
            spread = 1.4826 * median(abs(x - middle) for x in past)
            hit = value - middle > self.threshold * max(spread, self.floor)
        past.append(value)
        return hit


class PageHinkley:
    """A cumulative sum of the loss above its running mean that passes 50.

    The defaults of river's PageHinkley (threshold 50, delta 0.005, alpha 0.9999, 30 values before
    it judges), looking upwards only; it starts anew after it fired. Page 1954, Biometrika 41.

    >>> rule = PageHinkley()
    >>> rows = [Row(s, {"loss": 2.0 if s < 100 else 5.0}) for s in range(200)]
    >>> [row.step for row in rows if rule.update(row)][:1]
    [118]
    """

    name = "page_hinkley"
    threshold, delta, alpha, least = 50.0, 0.005, 0.9999, 30

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._sum = 0.0
        self._lowest = 0.0

    def update(self, row: Row) -> bool:
        loss = row.values.get(LOSS)
        if loss is None:
            return False
        self._count += 1
        self._mean += (loss - self._mean) / self._count
        self._sum = self.alpha * self._sum + (loss - self._mean - self.delta)
        self._lowest = min(self._lowest, self._sum)
        if self._count < self.least or not self._sum - self._lowest > self.threshold:
            return False
        self._restart()
        return True


def _deviation(values: deque[float]) -> float:
    """Standard deviation, or NaN where a value is none: then no comparison holds."""
    mean = fmean(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
