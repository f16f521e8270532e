"""Parameters that an optimizer step leaves as they were."""

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import LR, UPDATE_RATIO, UPDATE_SKIPPED

NOTHING = 1e-9
READINGS = 3


class ParametersUnchanged(BaseDetector):
    """Report three readings of an update ratio of nothing while the learning rate is not.

    A rate near zero by plan (the first step of a warm-up, the end of a decay) is no fault, so only
    rates of at least a thousandth of the highest seen count.

    What it finds: detached graphs, frozen groups, gradients that never reach the optimizer.
    Reading the ratio of update to weight is old practice: Karpathy, CS231n notes, "Ratio of
    weights:updates".

    >>> detector = ParametersUnchanged()
    >>> rows = [Row(s, {"lr": 1e-3, "update_ratio": 0.0}) for s in range(3)]
    >>> [found.kind for row in rows if (found := detector.update(row))]
    ['dead_update']
    """

    __slots__ = ("_highest", "_latch", "_run")
    name = "parameters_unchanged"
    metrics: tuple[str, ...] = (UPDATE_RATIO,)
    _kept = ("_run", "_highest", "_latch")

    def _clear(self) -> None:
        self._run = 0
        self._highest = 0.0
        self._latch = Latch(calm=1)

    def update(self, row: Row) -> Finding | None:
        values = row.values
        ratio = values.get(UPDATE_RATIO)
        if ratio is None:
            return None
        lr = values.get(LR, 1.0)
        if lr > self._highest:
            self._highest = lr
        if not ratio < NOTHING:
            self._run = 0
            self._latch.step(False)
            return None
        if lr <= 1e-8 or lr < 1e-3 * self._highest or values.get(UPDATE_SKIPPED) == 1.0:
            return None
        self._run += 1
        if self._run < READINGS or not self._latch.step(True):
            return None
        return self._finding(
            row,
            "dead_update",
            "invariant",
            "error",
            metric=UPDATE_RATIO,
            score=float(self._run),
            message=f"the optimizer changed no parameter in {self._run} readings although the "
            f"learning rate is {lr:.3g}",
            evidence=evidence_of(row, UPDATE_RATIO, LR),
        )
