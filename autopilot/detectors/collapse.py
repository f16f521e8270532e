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


class Collapse(BaseDetector):
    """Report four evaluations running far below the robust recent level.

    Far is both four robust deviations (1.4826 MAD) of the last 50 evaluations and three tenths of
    the range between the worst and the best reading so far: rewards of reinforcement learning swing
    by several deviations and come back. Low readings do not enter the level while they last. The
    median over 50 evaluations is sorted only at an evaluation, which is rare.

    Compare Dohare et al. 2024, Nature 632, 768-774 (policy collapse and lost plasticity).

    >>> detector = Collapse()
    >>> rewards = [30.0 + s % 3 for s in range(40)] + [1.0, 0.5, 0.2, 0.1]
    >>> rows = [Row(s, {"val_accuracy": reward}) for s, reward in enumerate(rewards)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('collapse', 43)]
    """

    __slots__ = ("_best", "_first", "_latch", "_recent", "_run", "_worst")
    name = "collapse"
    metrics: tuple[str, ...] = (ACCURACY,)
    _kept = ("_best", "_first", "_latch", "_recent", "_run", "_worst")

    def _clear(self) -> None:
        self._recent: list[float] = []
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
        if len(recent) < 8:
            if not recent:
                self._best = self._worst = value
            self._widen(value)
            recent.append(value)
            return None
        level, noise = _level(recent)
        bar = level - max(DEVIATIONS * noise, SHARE * (self._best - self._worst))
        self._widen(value)
        if not value < bar:
            self._run = 0
            self._latch.step(False)
            recent.append(value)
            if len(recent) > WINDOW:
                recent.pop(0)
            return None
        self._run += 1
        if self._run == 1:
            self._first = [row.step, value]
        if self._run >= 2 * WINDOW:
            self._clear()  # what has lasted so long is the level now
            return None
        if self._run < READINGS or not self._latch.step(True):
            return None
        first = Evidence(metric=ACCURACY, step=int(self._first[0]), value=self._first[1])
        return self._finding(
            row,
            "collapse",
            "alarm",
            "error",
            metric=ACCURACY,
            score=(level - value) / noise if noise > 0.0 else DEVIATIONS,
            message=f"{ACCURACY} {value:.4g} is far below its recent level of {level:.4g}, "
            f"{self._run} evaluations running",
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
