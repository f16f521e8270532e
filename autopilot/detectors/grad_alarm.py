"""Gradients that grew and stay grown while the loss agrees."""

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.detectors.trend import Trend
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import GRAD_NORM, LOSS

RAISED = 3.0
_TWO_OF_FIVE = tuple(bits.bit_count() >= 2 for bits in range(32))
_THREE_OF_FIVE = tuple(bits.bit_count() >= 3 for bits in range(32))


class GradAlarm(BaseDetector):
    """Report a gradient norm whose median of five z passes 3 while the loss agrees.

    The loss agrees where its own z passes 3 in this row and in another of the last five. Alone,
    gradient norms cry wolf: on 18,860 healthy steps the median of five fired five times, and with
    the loss above 2 in one row still in three short episodes.

    Compare ZClip, arXiv 2504.02507, which limits on the same statistic and alarms nobody.

    >>> detector = GradAlarm()
    >>> rows = [
    ...     Row(s, {"loss": 2 + 0.1 * (s % 2) + 0.5 * (s > 50), "grad_norm": 1.0 + 9.0 * (s > 50)})
    ...     for s in range(56)
    ... ]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('grad_spike', 53)]
    """

    __slots__ = ("_agrees", "_bits", "_first_step", "_first_value", "_latch", "grad", "loss")
    name = "grad_alarm"
    metrics: tuple[str, ...] = (GRAD_NORM,)
    _kept = ("loss", "grad", "_agrees", "_bits", "_first_step", "_first_value", "_latch")

    def __init__(self, loss: Trend | None = None, grad: Trend | None = None) -> None:
        self.loss = loss or Trend(LOSS)
        self.grad = grad or Trend(GRAD_NORM)
        super().__init__()

    def _clear(self) -> None:
        self.loss.reset()
        self.grad.reset()
        self._bits = 0
        self._agrees = 0
        self._first_step = 0
        self._first_value = 0.0
        self._latch = Latch(calm=5)

    def update(self, row: Row) -> Finding | None:
        loss, grad = self.loss, self.grad
        loss_z = loss.z if loss.row is row else loss.observe(row)
        z = grad.z if grad.row is row else grad.observe(row)
        bits = self._bits
        if z <= RAISED and not bits and not self._latch.on:
            return None
        if not grad.fresh:
            return None
        if not bits:
            self._first_step = row.step
            self._first_value = row.values[GRAD_NORM]
            self._agrees = 0
        self._bits = bits = ((bits << 1) | (z > RAISED)) & 31
        self._agrees = agrees = ((self._agrees << 1) | (loss_z > RAISED)) & 31
        sick = _THREE_OF_FIVE[bits] and loss_z > RAISED and _TWO_OF_FIVE[agrees]
        if not self._latch.step(sick):
            return None
        norm = row.values[GRAD_NORM]
        first = Evidence(metric=GRAD_NORM, step=self._first_step, value=self._first_value)
        return self._finding(
            row,
            "grad_spike",
            "alarm",
            "error",
            metric=GRAD_NORM,
            score=z,
            message=f"gradient norm {norm:.4g} is {z:.3g} robust deviations above its trend of "
            f"{self.grad.expected:.4g}, and the loss is {loss_z:.3g} above its own",
            evidence=(first, *evidence_of(row, GRAD_NORM, LOSS)),
        )
