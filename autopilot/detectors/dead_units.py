"""Rectified units that no longer answer to anything."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import DEAD_FRACTION

DEAD = 0.5
ALIVE = 0.3
READINGS = 2


class DeadUnits(BaseDetector):
    """Report more than half of the units dead, twice running, in a net that once had under 0.3.

    A healthy small net read 0.17, one after a kick of the learning rate 0.65. Going back before the
    kick repairs it (-0.39), a lower rate makes it far worse (+1.47).

    Lu et al. 2019, "Dying ReLU and Initialization", arXiv 1903.06733.

    >>> detector = DeadUnits()
    >>> rows = [Row(s, {"dead_fraction": x}) for s, x in enumerate([0.17, 0.2, 0.65, 0.65])]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('dead_units', 3)]
    """

    __slots__ = ("_first", "_latch", "_lowest", "_run")
    name = "dead_units"
    metrics: tuple[str, ...] = (DEAD_FRACTION,)
    _kept = ("_first", "_latch", "_lowest", "_run")

    def __init__(self) -> None:
        # Outlives a reset: that the net was once alive is a fact of the run.
        self._lowest = 1.0
        super().__init__()

    def _clear(self) -> None:
        self._run = 0
        self._first: list[float] = []
        self._latch = Latch(calm=2, repeat=10)

    def update(self, row: Row) -> Finding | None:
        share = row.values.get(DEAD_FRACTION)
        if share is None or not isfinite(share):
            return None
        if share < self._lowest:
            self._lowest = share
        if share <= DEAD or self._lowest >= ALIVE:
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run == 1:
            self._first = [row.step, share]
        if self._run < READINGS or not self._latch.step(True):
            return None
        first = Evidence(metric=DEAD_FRACTION, step=int(self._first[0]), value=self._first[1])
        return self._finding(
            row,
            "dead_units",
            "alarm",
            "error",
            metric=DEAD_FRACTION,
            score=share / max(self._lowest, 0.01),
            message=f"{share:.0%} of the rectified units are dead; at their best {self._lowest:.0%}"
            " were",
            evidence=(first, *evidence_of(row, DEAD_FRACTION)),
        )
