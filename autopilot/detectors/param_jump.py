"""Weights that leap by more than any optimizer step moves them."""

from math import isfinite, log

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import PARAM_NORM, UPDATE_RATIO

LEAP = 0.4
TIMES = 50.0
SETTLED_ROWS = 20
_MEMORY = 0.05


class ParamJump(BaseDetector):
    """Report a parameter norm that changes by half in one row, fifty times its usual change.

    A norm cannot change by more than the norm of the update, so where the update ratio of the row
    is known and large the leap is the optimizer's and no corruption. What remains is memory: a
    flipped exponent bit, a broken restore. Going back and replaying the same batches repairs it.

    Llama 3, arXiv 2407.21783, section 3.3.4 (silent data corruption among interruptions); Dixit et
    al. 2021, arXiv 2102.11245.

    >>> detector = ParamJump()
    >>> norms = [10.0 + 0.01 * s for s in range(40)] + [400.0]
    >>> rows = [Row(s, {"param_norm": norm}) for s, norm in enumerate(norms)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('silent_corruption', 40)]
    """

    __slots__ = ("_last", "_last_step", "_latch", "_rows", "_usual")
    name = "param_jump"
    metrics: tuple[str, ...] = (PARAM_NORM,)
    _kept = ("_last", "_last_step", "_latch", "_rows", "_usual")

    def _clear(self) -> None:
        self._rows = 0
        self._last = 0.0
        self._last_step = 0
        self._usual = 0.0
        self._latch = Latch(calm=20)

    def update(self, row: Row) -> Finding | None:
        norm = row.values.get(PARAM_NORM)
        if norm is None or not isfinite(norm) or norm <= 0.0:
            return None
        last, before = self._last, self._last_step
        self._last, self._last_step = norm, row.step
        self._rows += 1
        if last <= 0.0:
            return None
        change = norm / last - 1.0
        if change < 0.0:
            change = -change
        usual = self._usual
        if change <= LEAP:
            self._usual = usual + _MEMORY * (change - usual)
            if self._latch.on:
                self._latch.step(False)
            return None
        ratio = row.values.get(UPDATE_RATIO, 0.0)
        sudden = abs(log(norm / last)) > TIMES * usual and ratio < 0.5 * LEAP
        if self._rows < SETTLED_ROWS or not self._latch.step(sudden):
            return None
        return self._finding(
            row,
            "silent_corruption",
            "invariant",
            "error",
            metric=PARAM_NORM,
            score=norm / last,
            message=f"the norm of the parameters went from {last:.4g} to {norm:.4g} in one row; "
            f"its usual change is {usual:.2g} of it",
            evidence=(
                Evidence(metric=PARAM_NORM, step=before, value=last),
                *evidence_of(row, PARAM_NORM, UPDATE_RATIO),
            ),
        )
