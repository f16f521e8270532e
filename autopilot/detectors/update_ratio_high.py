"""Steps so large that they overwrite the weights: a learning rate that is too high."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, FindingKind, Row
from autopilot.schema.metrics import LR, LR_PLANNED, UPDATE_RATIO

LIMIT = 0.1
NO_WARMUP_BELOW = 0.2
FIRST_STEP = 5
READINGS = 3


class UpdateRatioHigh(BaseDetector):
    """Report three readings running, from step 5 on, of an update above a tenth of the weights.

    Healthy small language models read 0.03 at step 5; without a warm-up 0.13, with a rate 4 and 13
    times too high 0.10 and 0.24. The loss tells these apart only at step 60, and the gradient norm
    misleads: it is *lower* there. Where the rate was at its highest from the first row on, and the
    ratio below 0.2, the missing warm-up is named as the cause.

    Compare LAMB's trust ratio, You et al. 2020, arXiv 1904.00962.

    >>> detector = UpdateRatioHigh()
    >>> rows = [Row(s, {"update_ratio": 0.3, "lr": 0.2}) for s in range(1, 9)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('lr_too_high', 7)]
    """

    __slots__ = ("_first", "_first_lr", "_highest", "_latch", "_run")
    name = "update_ratio_high"
    metrics: tuple[str, ...] = (UPDATE_RATIO, LR)
    _kept = ("_first", "_first_lr", "_highest", "_latch", "_run")

    def _clear(self) -> None:
        self._run = 0
        self._first: list[float] = []
        self._first_lr = -1.0
        self._highest = 0.0
        self._latch = Latch(calm=3, repeat=10)

    def update(self, row: Row) -> Finding | None:
        values = row.values
        lr = values.get(LR_PLANNED) or values.get(LR)
        if lr is not None and lr > self._highest:
            self._highest = lr
            if self._first_lr < 0.0:
                self._first_lr = lr
        ratio = values.get(UPDATE_RATIO)
        if ratio is None or row.step < FIRST_STEP:
            return None
        if not ratio > LIMIT or not isfinite(ratio):
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run == 1:
            self._first = [row.step, ratio]
        if self._run < READINGS or not self._latch.step(True):
            return None
        return self._report(row, ratio)

    def _report(self, row: Row, ratio: float) -> Finding:
        from_the_top = 0.0 < self._highest <= 1.01 * self._first_lr
        early = row.step < 50
        bare = from_the_top and early and ratio < NO_WARMUP_BELOW
        kind: FindingKind = "no_warmup" if bare else "lr_too_high"
        why = "; the learning rate started at its highest" if bare else ""
        first = Evidence(metric=UPDATE_RATIO, step=int(self._first[0]), value=self._first[1])
        return self._finding(
            row,
            kind,
            "alarm",
            "error",
            metric=UPDATE_RATIO,
            score=ratio / LIMIT,
            message=f"one step changes the weights by {ratio:.3g} of their norm, "
            f"{self._run} readings running (limit {LIMIT}){why}",
            evidence=(first, *evidence_of(row, UPDATE_RATIO, LR)),
        )
