"""A single row far above the trend: written down, nothing more."""

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.detectors.trend import Trend
from autopilot.schema import Finding, FindingKind, Row
from autopilot.schema.metrics import GRAD_NORM, LOSS

THRESHOLD = 6.0


class Outlier(BaseDetector):
    """Note a loss or gradient norm more than six robust deviations above its trend.

    On healthy runs this happens some 20 times in 10,000 steps, so it never wakes anyone; it dates
    the onset of what an alarm confirms later. Gradient norms led BLOOM-176B's loss spike by four
    iterations (BigScience, tr11-176B-ml chronicles).

    >>> detector = Outlier("loss")
    >>> rows = [Row(s, {"loss": 2.0 + 0.01 * (s % 3)}) for s in range(50)]
    >>> [detector.update(row) for row in rows] == [None] * 50
    True
    >>> found = detector.update(Row(50, {"loss": 3.0}))
    >>> found.kind, found.tier
    ('loss_spike', 'watch')
    """

    __slots__ = ("_kind", "_latch", "_metric", "_trend", "metrics", "name")
    _kept = ("_trend", "_latch")
    name: str
    metrics: tuple[str, ...]

    def __init__(self, metric: str = LOSS, trend: Trend | None = None) -> None:
        self._metric = metric
        self._kind: FindingKind = "grad_spike" if metric == GRAD_NORM else "loss_spike"
        self._trend = trend or Trend(metric)
        self.name = f"{metric}_outlier"
        self.metrics = (metric,)
        super().__init__()

    def _clear(self) -> None:
        self._trend.reset()
        self._latch = Latch(calm=3)

    def update(self, row: Row) -> Finding | None:
        trend = self._trend
        z = trend.z if trend.row is row else trend.observe(row)
        if z <= THRESHOLD:
            if self._latch.on and trend.fresh:
                self._latch.step(False)
            return None
        if not self._latch.step(True):
            return None
        value = row.values[self._metric]
        expected = trend.expected
        return self._finding(
            row,
            self._kind,
            "watch",
            "info",
            metric=self._metric,
            score=z,
            message=f"{self._metric} {value:.4g} is {z:.3g} robust deviations above its trend of "
            f"{expected:.4g}",
            evidence=evidence_of(row, self._metric),
        )
