"""A loss that climbs too slowly for any row to stand out."""

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.detectors.trend import Trend
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import LOSS

MEMORY = 0.02
DEVIATIONS = 4.0
RISE = 0.08
ROWS = 30
GIVE_UP = 300


class SlowDrift(BaseDetector):
    """Report a smoothed loss above its own best by four robust deviations and 8 % for thirty rows.

    A trend follows a slow climb and calls it normal, so this one compares with the best level ever
    held. The smoothing remembers 50 rows; single rows enter it clipped.

    OPT-175B's logbook shows such drifts, which a ten percent lower rate after going back cured.

    >>> detector = SlowDrift()
    >>> rows = [
    ...     Row(s, {"loss": 2.0 + 0.02 * (s % 3) + 0.005 * max(s - 200, 0)}) for s in range(500)
    ... ]
    >>> found = [f for row in rows if (f := detector.update(row))]
    >>> found[0].kind, 250 < found[0].step < 400
    ('slow_drift', True)
    """

    __slots__ = ("_best", "_best_step", "_best_value", "_latch", "_linear", "_run", "_smooth",
                 "_started", "loss")  # fmt: skip
    name = "slow_drift"
    metrics: tuple[str, ...] = (LOSS,)
    _kept = ("loss", "_best", "_best_step", "_best_value", "_latch", "_linear", "_run", "_smooth",
             "_started")  # fmt: skip

    def __init__(self, loss: Trend | None = None) -> None:
        self.loss = loss or Trend(LOSS)
        super().__init__()

    def _clear(self) -> None:
        self.loss.reset()
        self._started = False
        self._linear = False
        self._smooth = 0.0
        self._best = 0.0
        self._best_step = 0
        self._best_value = 0.0
        self._run = 0
        self._latch = Latch(calm=50, repeat=100)

    def update(self, row: Row) -> Finding | None:
        trend = self.loss
        if trend.row is not row:
            trend.observe(row)
        if not trend.fresh:
            return None
        value = trend.value
        scale = trend.scale
        if not self._started or trend.linear is not self._linear:
            self._begin(row, value)
            return None
        residual = value - self._smooth
        limit = 3.0 * scale
        if residual > limit:
            residual = limit
        self._smooth = smooth = self._smooth + MEMORY * residual
        gap = smooth - self._best
        if gap <= 0.0:
            self._best = smooth
            self._best_step = row.step
            self._best_value = row.values[LOSS]
        if gap <= DEVIATIONS * scale or gap <= (RISE * abs(self._best) if self._linear else RISE):
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run >= GIVE_UP:
            self._clear_level(row, smooth)
            return None
        if self._run < ROWS or not self._latch.step(True):
            return None
        return self._finding(
            row,
            "slow_drift",
            "alarm",
            "error",
            metric=LOSS,
            score=gap / scale,
            message=f"the smoothed loss is {gap / scale:.2g} robust deviations above its best, "
            f"held at step {self._best_step}",
            evidence=(
                Evidence(metric=LOSS, step=max(self._best_step, 0), value=self._best_value),
                *evidence_of(row, LOSS),
            ),
        )

    def _clear_level(self, row: Row, smooth: float) -> None:
        """What has lasted so long is the level now."""
        self._best = smooth
        self._best_step = row.step
        self._best_value = row.values[LOSS]
        self._run = 0
        self._latch.reset()

    def _begin(self, row: Row, value: float) -> None:
        self._started = True
        self._linear = self.loss.linear
        self._smooth = self._best = value
        self._best_step = row.step
        self._best_value = row.values[LOSS]
