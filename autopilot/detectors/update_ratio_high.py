"""Steps so large that they overwrite the weights: a learning rate that is too high."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, FindingKind, Row
from autopilot.schema.metrics import LOSS, LR, LR_PLANNED, UPDATE_RATIO

LIMIT = 0.1
EARLY_LIMIT = 0.08
EARLY_STEPS = 60
STUMBLE_WITHIN = 20
FIRST_STEP = 4
READINGS = 3
NO_WARMUP_BELOW = 0.7


class UpdateRatioHigh(BaseDetector):
    """Report updates that overwrite the weights: three readings running above a tenth of them.

    In the first sixty steps the limit is 0.08, and within twenty rows the loss must stumble besides
    (rise twice, or above its first value): a model that begins near zero, or a small problem, takes
    large relative steps while it learns well.
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

    __slots__ = (
        "_first_loss",
        "_first_lr",
        "_first_ratio",
        "_highest",
        "_last_loss",
        "_latch",
        "_rises",
        "_run",
        "_suspect",
    )
    name = "update_ratio_high"
    metrics: tuple[str, ...] = (UPDATE_RATIO, LR)
    _kept = (
        "_first_loss",
        "_first_lr",
        "_first_ratio",
        "_highest",
        "_last_loss",
        "_latch",
        "_rises",
        "_run",
        "_suspect",
    )

    def _clear(self) -> None:
        self._run = 0
        self._first_loss: float | None = None
        self._first_ratio: list[float] = []
        self._first_lr = -1.0
        self._highest = 0.0
        self._last_loss: float | None = None
        self._rises = 0
        self._suspect = 0
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
        self._run = self._run + 1 if ratio > limit and isfinite(ratio) else 0
        found = self._run >= READINGS
        if early:
            if found:
                self._suspect = row.step
            stumbled = self._rises >= 2
            found = stumbled and self._suspect > 0 and row.step - self._suspect <= STUMBLE_WITHIN
        if not found:
            if self._latch.on:
                self._latch.step(False)
            return None
        return self._report(row, ratio, limit) if self._latch.step(True) else None

    def _look_at_beginning(self, row: Row, ratio: float | None) -> None:
        loss = row.values.get(LOSS)
        if ratio is not None and not self._first_ratio:
            self._first_ratio = [row.step, ratio]
        if loss is None:
            return
        if self._first_loss is None or self._last_loss is None:
            self._first_loss = loss
        elif not loss <= self._first_loss:  # NaN counts as risen
            self._rises += 2
        elif loss > self._last_loss:
            self._rises += 1
        self._last_loss = loss

    def _report(self, row: Row, ratio: float, limit: float) -> Finding:
        first = self._first_ratio
        from_the_top = 0.0 < self._highest <= 1.01 * self._first_lr
        began = bool(first) and first[0] <= 1 and isfinite(first[1])
        bare = from_the_top and began and first[1] < NO_WARMUP_BELOW
        kind: FindingKind = "no_warmup" if bare else "lr_too_high"
        why = "; the learning rate started at its highest" if bare else ""
        seen: tuple[Evidence, ...] = ()
        if began and (row.step <= EARLY_STEPS or first[1] > limit):
            seen = (Evidence(metric=UPDATE_RATIO, step=int(first[0]), value=first[1]),)
        return self._finding(
            row,
            kind,
            "alarm",
            "error",
            metric=UPDATE_RATIO,
            score=ratio / limit,
            message=f"one step changes the weights by {ratio:.3g} of their norm, "
            f"after {READINGS} readings running above {limit:g}{why}",
            evidence=(*seen, *evidence_of(row, UPDATE_RATIO, LR)),
        )
