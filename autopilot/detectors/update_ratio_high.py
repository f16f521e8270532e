"""Steps so large that they overwrite the weights: a learning rate that is too high."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, FindingKind, Row
from autopilot.schema.metrics import LOSS, LR, LR_PLANNED, UPDATE_RATIO

LIMIT = 0.1
EARLY_LIMIT = 0.08
EARLY_STEPS = 60
FIRST_STEP = 4
READINGS = 3
NO_WARMUP_BELOW = 0.7


class UpdateRatioHigh(BaseDetector):
    """Report updates that overwrite the weights: three readings running above a tenth of them.

    In the first sixty steps the limit is 0.08, and the loss must have risen above its first value
    besides: a model that begins at or near zero takes large relative steps while it learns well.
    Healthy small language models read 0.02 at step 5; without a warm-up 0.14, and 25 times too
    high 0.2. The loss alone tells these apart only at step 60, and the gradient norm misleads: it
    is *lower* there. The first step's ratio is reported as evidence, because it alone is exactly
    proportional to the learning rate. Where the rate was at its highest from the first row on, and
    that ratio below 0.7, the missing warm-up is named as the cause.

    Compare LAMB's trust ratio, You et al. 2020, arXiv 1904.00962.

    >>> detector = UpdateRatioHigh()
    >>> rows = [Row(s, {"update_ratio": 0.3, "lr": 0.2, "loss": 4 + 0.1 * s}) for s in range(1, 9)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('no_warmup', 6)]
    """

    __slots__ = ("_first_loss", "_first_lr", "_first_ratio", "_highest", "_latch", "_rose", "_run")
    name = "update_ratio_high"
    metrics: tuple[str, ...] = (UPDATE_RATIO, LR)
    _kept = ("_first_loss", "_first_lr", "_first_ratio", "_highest", "_latch", "_rose", "_run")

    def _clear(self) -> None:
        self._run = 0
        self._first_loss: float | None = None
        self._first_ratio: list[float] = []
        self._first_lr = -1.0
        self._highest = 0.0
        self._rose = False
        self._latch = Latch(calm=3, repeat=10)

    def update(self, row: Row) -> Finding | None:
        values = row.values
        lr = values.get(LR_PLANNED) or values.get(LR)
        if lr is not None and lr > self._highest:
            self._highest = lr
            if self._first_lr < 0.0:
                self._first_lr = lr
        ratio = values.get(UPDATE_RATIO)
        early = row.step <= EARLY_STEPS
        if early:
            self._look_at_beginning(row, ratio)
        if ratio is None or row.step < FIRST_STEP:
            return None
        limit = EARLY_LIMIT if early else LIMIT
        if not ratio > limit or not isfinite(ratio) or (early and not self._rose):
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run < READINGS or not self._latch.step(True):
            return None
        return self._report(row, ratio, limit)

    def _look_at_beginning(self, row: Row, ratio: float | None) -> None:
        loss = row.values.get(LOSS)
        if ratio is not None and not self._first_ratio:
            self._first_ratio = [row.step, ratio]
        if loss is None:
            return
        if self._first_loss is None:
            self._first_loss = loss
        elif not loss <= self._first_loss:  # NaN counts as risen
            self._rose = True

    def _report(self, row: Row, ratio: float, limit: float) -> Finding:
        first = self._first_ratio
        from_the_top = 0.0 < self._highest <= 1.01 * self._first_lr
        began = bool(first) and first[0] <= 1 and isfinite(first[1])
        bare = from_the_top and began and first[1] < NO_WARMUP_BELOW
        kind: FindingKind = "no_warmup" if bare else "lr_too_high"
        why = "; the learning rate started at its highest" if bare else ""
        seen: tuple[Evidence, ...] = ()
        if began:
            seen = (Evidence(metric=UPDATE_RATIO, step=int(first[0]), value=first[1]),)
        return self._finding(
            row,
            kind,
            "alarm",
            "error",
            metric=UPDATE_RATIO,
            score=ratio / limit,
            message=f"one step changes the weights by {ratio:.3g} of their norm, "
            f"{READINGS} readings running (limit {limit:g}){why}",
            evidence=(*seen, *evidence_of(row, UPDATE_RATIO, LR)),
        )
