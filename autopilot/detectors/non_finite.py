"""A loss, gradient or parameter that is no number."""

from math import isfinite, isnan

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Finding, Row, Severity, Tier
from autopilot.schema.metrics import GRAD_NORM, LOSS, LOSS_SCALE, PARAM_NORM, UPDATE_SKIPPED

IN_A_ROW = 3


class NonFinite(BaseDetector):
    """Report NaN or infinity in loss, gradient norm or parameter norm.

    A non-finite gradient whose update was skipped left the weights alone: that is noted (watch),
    and is an error only when it happens three rows running. Where a loss scale is searched for,
    overflows belong to the search, and :class:`~autopilot.detectors.skipped.SkippedUpdates` judges
    them. A non-finite loss is an error at once, unless the update is known to have been skipped,
    and a non-finite parameter norm always is: the weights themselves are damaged.

    Micikevicius et al. 2018, "Mixed Precision Training", arXiv 1710.03740 (overflow and skipping).

    >>> nan = float("nan")
    >>> found = NonFinite().update(Row(7, {"loss": nan}))
    >>> found.kind, found.tier, found.severity
    ('non_finite', 'invariant', 'error')
    >>> NonFinite().update(Row(7, {"loss": 2.0, "grad_norm": nan, "update_skipped": 1.0})).tier
    'watch'
    """

    __slots__ = ("_error", "_noted", "_run")
    name = "non_finite"
    metrics: tuple[str, ...] = (LOSS, GRAD_NORM, PARAM_NORM)
    _kept = ("_run", "_error", "_noted")

    def _clear(self) -> None:
        self._run = 0
        self._error = Latch()
        self._noted = Latch()

    def update(self, row: Row) -> Finding | None:
        values = row.values
        loss = values.get(LOSS, 0.0)
        grad = values.get(GRAD_NORM, 0.0)
        norm = values.get(PARAM_NORM, 0.0)
        # The sum of finite numbers overflows only far beyond anything a metric reads.
        if isfinite(loss + grad + norm) or (isfinite(loss) and isfinite(grad) and isfinite(norm)):
            self._run = 0
            if self._error.on or self._noted.on:
                self._error.step(False)
                self._noted.step(False)
            return None
        self._run += 1
        return self._judge(row, loss, grad, norm)

    def _judge(self, row: Row, loss: float, grad: float, norm: float) -> Finding | None:
        skipped = row.values.get(UPDATE_SKIPPED)
        searching = LOSS_SCALE in row.values and skipped == 1.0
        if not isfinite(norm):
            metric, error = PARAM_NORM, True
        elif not isfinite(loss):
            repeated = self._run >= IN_A_ROW and not searching
            metric, error = LOSS, skipped != 1.0 or repeated
        else:
            repeated = self._run >= IN_A_ROW and not searching
            metric, error = GRAD_NORM, (skipped == 0.0 and isnan(grad)) or repeated
        latch = self._error if error else self._noted
        if not latch.step(True):
            return None
        tier: Tier = "invariant" if error else "watch"
        severity: Severity = "error" if error else "info"
        rows = f", {self._run} rows running" if self._run > 1 else ""
        note = "; the update was skipped" if skipped == 1.0 else ""
        return self._finding(
            row,
            "non_finite",
            tier,
            severity,
            metric=metric,
            score=float(self._run),
            message=f"{metric} is {row.values[metric]}{rows}{note}",
            evidence=evidence_of(row, metric, UPDATE_SKIPPED),
        )
