"""A held-out accuracy or a reward that falls far below where it was."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import ACCURACY

WINDOW = 50
DEVIATIONS = 4.0
SHARE = 0.3
READINGS = 4
LATEST = 8
SUNKEN = 7
DECILE = 0.1
LEAST = 20
SINKS = 0.15


class Collapse(BaseDetector):
    """Report evaluations that fell far below the recent level, or sank beneath it and stay there.

    Far is four readings running below by both four robust deviations (1.4826 MAD) of the last 50
    and three tenths of the range between the worst and the best so far: rewards of reinforcement
    learning swing by several deviations and come back. Low readings do not enter the level while
    they last. Where the swings are as wide as the fall, ranks still tell: seven of the last eight
    readings beneath the lowest tenth of the fifty before them, their median lower by 15 % of the
    range. Sorting is done only at an evaluation, which is rare.

    Compare Dohare et al. 2024, Nature 632, 768-774 (policy collapse and lost plasticity), and for
    the ranks Gombay 2000, Sequential Analysis 19, 139-151.

    >>> detector = Collapse()
    >>> rewards = [30.0 + s % 3 for s in range(40)] + [1.0, 0.5, 0.2, 0.1]
    >>> rows = [Row(s, {"val_accuracy": reward}) for s, reward in enumerate(rewards)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('collapse', 43)]
    """

    __slots__ = ("_best", "_first", "_latch", "_latest", "_past", "_recent", "_run", "_worst")
    name = "collapse"
    metrics: tuple[str, ...] = (ACCURACY,)
    _kept = ("_best", "_first", "_latch", "_latest", "_past", "_recent", "_run", "_worst")

    def _clear(self) -> None:
        self._recent: list[float] = []
        self._past: list[float] = []
        self._latest: list[list[float]] = []
        self._best = 0.0
        self._worst = 0.0
        self._run = 0
        self._first: list[float] = []
        self._latch = Latch(calm=3, repeat=25)

    def update(self, row: Row) -> Finding | None:
        value = row.values.get(ACCURACY)
        if value is None or not isfinite(value):
            return None
        recent = self._recent
        if not recent:
            self._best = self._worst = value
        sunken = self._sinks(row.step, value)
        if len(recent) < 8:
            self._widen(value)
            recent.append(value)
            return None
        level, noise = _level(recent)
        bar = level - max(DEVIATIONS * noise, SHARE * (self._best - self._worst))
        self._widen(value)
        if value < bar:
            self._run += 1
            if self._run == 1:
                self._first = [row.step, value]
        else:
            self._run = 0
            recent.append(value)
            if len(recent) > WINDOW:
                recent.pop(0)
        if self._run >= 2 * WINDOW:
            self._clear()  # what has lasted so long is the level now
            return None
        if not self._latch.step(sunken or self._run >= READINGS):
            return None
        return self._report(row, value, level, noise)

    def _sinks(self, step: int, value: float) -> bool:
        """Whether the latest readings lie beneath nearly all of those before them."""
        past, latest = self._past, self._latest
        latest.append([step, value])
        if len(latest) > LATEST:
            past.append(latest.pop(0)[1])
            if len(past) > WINDOW:
                past.pop(0)
        if len(past) < LEAST:
            return False
        ordered = sorted(past)
        low = ordered[int(DECILE * len(ordered))]
        beneath = [reading for reading in latest if reading[1] < low]
        if len(beneath) < SUNKEN:
            return False
        fallen = ordered[len(ordered) // 2] - sorted(reading[1] for reading in latest)[LATEST // 2]
        if fallen < SINKS * (self._best - self._worst):
            return False
        if not self._run:
            self._first = list(beneath[0])
        return True

    def _report(self, row: Row, value: float, level: float, noise: float) -> Finding:
        first = Evidence(metric=ACCURACY, step=int(self._first[0]), value=self._first[1])
        return self._finding(
            row,
            "collapse",
            "alarm",
            "error",
            metric=ACCURACY,
            score=(level - value) / noise if noise > 0.0 else DEVIATIONS,
            message=f"{ACCURACY} {value:.4g} is far below its recent level of {level:.4g}, as "
            "were those before it",
            evidence=(first, *evidence_of(row, ACCURACY)),
        )

    def _widen(self, value: float) -> None:
        self._best = max(self._best, value)
        self._worst = min(self._worst, value)


def _level(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    spread = sorted(abs(value - middle) for value in values)
    return middle, 1.4826 * spread[len(spread) // 2]
