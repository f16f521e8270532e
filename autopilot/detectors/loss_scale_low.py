"""A loss scale below one: gradients are made smaller before half precision, not larger."""

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import GRAD_NORM, LOSS_SCALE

READINGS = 8


class LossScaleLow(BaseDetector):
    """Report a loss scale below one over eight readings.

    A scale is there to lift small gradients into the range of half precision. Below one it pushes
    them out of it: most become zero, no update is skipped, and only the gradient norm tells. A
    dynamic scale ends there when every step overflows, which is why DeepSpeed's ``min_loss_scale``
    is 1. A scale of 0 is how some loops log that there is none.

    Micikevicius et al. 2018, arXiv 1710.03740, section 3.2.

    >>> detector = LossScaleLow()
    >>> rows = [Row(s, {"loss_scale": 4096.0 if s < 5 else 2.0**-18}) for s in range(20)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('loss_scale_fault', 12)]
    """

    __slots__ = ("_latch", "_run")
    name = "loss_scale_low"
    metrics: tuple[str, ...] = (LOSS_SCALE,)
    _kept = ("_run", "_latch")

    def _clear(self) -> None:
        self._run = 0
        self._latch = Latch(calm=4)

    def update(self, row: Row) -> Finding | None:
        scale = row.values.get(LOSS_SCALE)
        if scale is None:
            return None
        if not 0.0 < scale < 1.0:
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run < READINGS or not self._latch.step(True):
            return None
        return self._finding(
            row,
            "loss_scale_fault",
            "invariant",
            "error",
            metric=LOSS_SCALE,
            score=1.0 / scale,
            message=f"the loss scale is {scale:.4g}: below 1 it makes gradients vanish in half "
            "precision",
            evidence=evidence_of(row, LOSS_SCALE, GRAD_NORM),
        )
