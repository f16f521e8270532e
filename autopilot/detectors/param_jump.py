"""Weights that leap by more than any optimizer step moves them."""

from math import inf, isfinite, log

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.detectors.running_median import RunningMedian
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import GRAD_NORM, PARAM_NORM, UPDATE_RATIO

LEAP = 0.4
TIMES = 50.0
LOUD = 10.0
SETTLED_ROWS = 20
_MEMORY = 0.05


class ParamJump(BaseDetector):
    """Report a parameter norm that changes by half in one row, fifty times its usual change.

    A norm cannot change by more than the norm of the update, so where a large update ratio was
    read, or the gradients were ten times their median meanwhile, the leap is the optimizer's
    and no corruption. What remains is memory: a flipped exponent bit, a broken restore. Going back
    and replaying the same batches repairs it.

    Llama 3, arXiv 2407.21783, section 3.3.4 (silent data corruption among interruptions); Dixit et
    al. 2021, arXiv 2102.11245.

    >>> detector = ParamJump()
    >>> norms = [10.0 + 0.01 * s for s in range(40)] + [400.0]
    >>> rows = [Row(s, {"param_norm": norm}) for s, norm in enumerate(norms)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('silent_corruption', 40)]
    """

    __slots__ = (
        "_grad",
        "_last",
        "_last_ratio",
        "_last_step",
        "_latch",
        "_loud",
        "_rows",
        "_usual",
    )
    name = "param_jump"
    metrics: tuple[str, ...] = (PARAM_NORM, GRAD_NORM)
    _kept = __slots__

    def _clear(self) -> None:
        self._rows = 0
        self._last = 0.0
        self._last_step = 0
        self._last_ratio = 0.0
        self._usual = 0.0
        self._grad = RunningMedian()
        self._loud = False
        self._latch = Latch(calm=20)

    def update(self, row: Row) -> Finding | None:
        values = row.values
        gradient = values.get(GRAD_NORM)
        if gradient is not None:
            median = self._grad
            if gradient <= LOUD * median.value:
                median.add(gradient)
            else:  # NaN is never below
                self._listen(gradient)
        norm = values.get(PARAM_NORM)
        if norm is None or not 0.0 < norm < inf:
            return None
        last, before, ratio_before, loud = self._last, self._last_step, self._last_ratio, self._loud
        ratio = values.get(UPDATE_RATIO, 0.0)
        self._last, self._last_step, self._last_ratio, self._loud = norm, row.step, ratio, False
        self._rows += 1
        if last <= 0.0:
            return None
        change = abs(norm / last - 1.0)
        usual = self._usual
        if change <= LEAP:
            self._usual = usual + _MEMORY * (change - usual)
            if self._latch.on:
                self._latch.step(False)
            return None
        explained = loud or max(ratio_before, ratio) >= 0.5 * LEAP
        sudden = abs(log(norm / last)) > TIMES * usual and not explained
        if self._rows < SETTLED_ROWS or not self._latch.step(sudden):
            return None
        return self._leap(row, before, last, norm)

    def _listen(self, gradient: float) -> None:
        usual = self._grad.value
        if gradient > LOUD * usual > 0.0 or not isfinite(gradient):
            self._loud = True
        else:
            self._grad.add(gradient)

    def _leap(self, row: Row, before: int, last: float, norm: float) -> Finding:
        return self._finding(
            row,
            "silent_corruption",
            "invariant",
            "error",
            metric=PARAM_NORM,
            score=norm / last,
            message=f"the norm of the parameters went from {last:.4g} to {norm:.4g} in one row; "
            f"its usual change is {self._usual:.2g} of it",
            evidence=(
                Evidence(metric=PARAM_NORM, step=before, value=last),
                *evidence_of(row, PARAM_NORM, UPDATE_RATIO),
            ),
        )
