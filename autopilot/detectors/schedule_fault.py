"""The learning rate in force is not the one that was planned."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import LR, LR_PLANNED

TOLERANCE = 1e-3
IN_A_ROW = 2
_MOST = 1e6


class ScheduleFault(BaseDetector):
    """Report a learning rate that leaves its plan for two rows or more.

    The score is the rate in force over the planned one. Loss and gradient norm are silent when a
    schedule falls to zero, and with a rate 30 times too high every step of delay is paid for
    (2.33 -> 2.42 after one step, 3.2 after eight), so this compares and does not infer.

    Faults of this kind in practice: OPT-175B and BLOOM-176B training chronicles (learning rate
    wrong after a resume).

    >>> detector = ScheduleFault()
    >>> detector.update(Row(1, {"lr": 3e-2, "lr_planned": 1e-3}))
    >>> found = detector.update(Row(2, {"lr": 3e-2, "lr_planned": 1e-3}))
    >>> found.kind, round(found.score)
    ('schedule_fault', 30)
    """

    __slots__ = ("_first", "_latch", "_run")
    name = "schedule_fault"
    metrics: tuple[str, ...] = (LR_PLANNED,)
    _kept = ("_run", "_first", "_latch")

    def _clear(self) -> None:
        self._run = 0
        self._first: list[float] = []
        self._latch = Latch(calm=2)

    def update(self, row: Row) -> Finding | None:
        values = row.values
        planned = values.get(LR_PLANNED)
        lr = values.get(LR)
        if planned is None or lr is None:
            return None
        if lr == planned or abs(lr - planned) <= TOLERANCE * max(abs(lr), abs(planned)):
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        if not (isfinite(lr) and isfinite(planned)):
            return None
        self._run += 1
        if self._run == 1:
            self._first = [row.step, lr]
        if self._run < IN_A_ROW or not self._latch.step(True):
            return None
        ratio = min(lr / planned, _MOST) if planned > 0.0 else _MOST
        first = Evidence(metric=LR, step=int(self._first[0]), value=self._first[1])
        return self._finding(
            row,
            "schedule_fault",
            "invariant",
            "error",
            metric=LR,
            score=ratio,
            message=f"learning rate {lr:.3g} is {ratio:.3g} times the planned {planned:.3g}",
            evidence=(first, *evidence_of(row, LR, LR_PLANNED)),
        )
