"""Gradients that outgrew Adam's estimate of them."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.detectors.running_median import RunningMedian
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import SECOND_MOMENT_STALENESS

FACTOR = 2.0


class Staleness(BaseDetector):
    """Note a second moment twice as stale as its own long median.

    It leads natural spikes by a median of nine steps, the gradient norm by four, the loss by one
    (15 spikes measured). The relative rise is the sign: an absolute limit of 2.3 caught 4 of 20.
    Only a watch: it dates the onset of what the loss confirms.

    Wortsman et al. 2023, arXiv 2304.13013, section 3.4 (RMS spikes precede loss spikes).

    >>> detector = Staleness()
    >>> rows = [Row(s, {"second_moment_staleness": 1.2 if s < 40 else 6.8}) for s in range(42)]
    >>> [(f.kind, f.tier, f.step) for row in rows if (f := detector.update(row))]
    [('grad_spike', 'watch', 40)]
    """

    __slots__ = ("_latch", "_median")
    name = "staleness"
    metrics: tuple[str, ...] = (SECOND_MOMENT_STALENESS,)
    _kept = ("_latch", "_median")

    def _clear(self) -> None:
        self._median = RunningMedian()
        self._latch = Latch(calm=5)

    def update(self, row: Row) -> Finding | None:
        value = row.values.get(SECOND_MOMENT_STALENESS)
        if value is None or not isfinite(value):
            return None
        usual = self._median.value
        self._median.add(value)
        if usual <= 0.0:
            return None
        if value <= FACTOR * usual:
            if self._latch.on:
                self._latch.step(False)
            return None
        if not self._latch.step(True):
            return None
        return self._finding(
            row,
            "grad_spike",
            "watch",
            "info",
            metric=SECOND_MOMENT_STALENESS,
            score=value / usual,
            message=f"gradients outgrew Adam's second moment {value:.3g}-fold; usual is "
            f"{usual:.3g}",
            evidence=evidence_of(row, SECOND_MOMENT_STALENESS),
        )
