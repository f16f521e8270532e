"""A learning rate that leaps in one step, where there is no plan to hold it against."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import LR, LR_PLANNED

FACTOR = 4.0
SETTLED_ROWS = 10


class LRJump(BaseDetector):
    """Note a rise of the learning rate, in one row, to more than four times its highest ever.

    A linear warm-up doubles from its first row to its second but no longer leaps after ten, so the
    first ten rows only teach. Only a watch: restarts and new stages do this on purpose.

    Its threshold is between the steepest warm-up and the smallest jump that did lasting harm among
    recorded faults (a factor of 4 in a small language model).

    >>> detector = LRJump()
    >>> rows = [Row(step, {"lr": 1e-3}) for step in range(12)]
    >>> [found for row in rows if (found := detector.update(row))]
    []
    >>> detector.update(Row(12, {"lr": 3e-2})).tier
    'watch'
    """

    __slots__ = ("_highest", "_last", "_rows")
    name = "lr_jump"
    metrics: tuple[str, ...] = (LR,)
    _kept = ("_rows", "_highest", "_last")

    def _clear(self) -> None:
        self._rows = 0
        self._highest = 0.0
        self._last = 0.0

    def update(self, row: Row) -> Finding | None:
        lr = row.values.get(LR)
        if lr is None:
            return None
        highest = self._highest
        self._rows += 1
        if lr <= highest:
            return None
        if not isfinite(lr):
            return None
        self._highest = lr
        if highest <= 0.0 or self._rows <= SETTLED_ROWS or lr <= FACTOR * highest:
            return None
        planned = row.values.get(LR_PLANNED, lr)
        if abs(planned - lr) > 1e-3 * lr:
            return None  # against a plan that differs, the schedule rule decides
        return self._finding(
            row,
            "schedule_fault",
            "watch",
            "warn",
            metric=LR,
            score=lr / highest,
            message=f"learning rate rose to {lr:.3g} in one row; its highest before was "
            f"{highest:.3g}",
            evidence=evidence_of(row, LR),
        )
