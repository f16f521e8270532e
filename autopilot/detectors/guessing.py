"""A model that came down to guessing by frequency and stays there: the rate saturated it."""

from math import inf, isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import LABEL_ENTROPY, LOSS, LR, LR_PLANNED, UPDATE_RATIO

LIMIT = 0.135
"""Three times what the first step of a tuned rate changes."""
BLOCK = 40
NEAR = 0.97
FIRST_FALL = 1.1
UP = 0.9
LEARNED = 0.8
BLOCKS = 50


class Guessing(BaseDetector):
    """Report a mean loss over forty rows, once the rate is up, no better than guessing labels.

    That is the entropy of the labels, less three percent. Asked for too are a loss that began well
    above it, a run seen from its first step, and an update ratio of that step which, carried to
    the full rate (it is proportional to it there), is three times that of a tuned one: then the
    rate is the cause. A warm-up hides such a rate from every later reading, because saturated
    weights are large and steps and gradients small beside them. Nothing in place brings such a
    model back, and going back to the beginning loses nothing it knows. Once it was a fifth better
    than guessing, or after 2,000 rows, that is no longer so: this looks no further then.

    Xiong et al. 2020, arXiv 2002.04745 (post-norm transformers collapse so without a warm-up).

    >>> detector = Guessing()
    >>> rates = [0.02 * min(s + 1, 60) / 60 for s in range(130)]
    >>> rows = [Row(s, {"loss": max(4.6 - 0.1 * s, 3.2), "lr": lr}) for s, lr in enumerate(rates)]
    >>> rows[0].values["update_ratio"], rows[50].values["label_entropy"] = 0.004, 3.25
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('lr_too_high', 119)]
    """

    __slots__ = (
        "_began",
        "_blocks",
        "_entropy",
        "_first",
        "_first_loss",
        "_highest",
        "_latch",
        "_rows",
        "_sum",
    )
    name = "guessing"
    metrics: tuple[str, ...] = (LOSS, UPDATE_RATIO, LABEL_ENTROPY)
    _kept = __slots__

    def __init__(self) -> None:
        self._entropy = 0.0  # outlives a reset: the labels stay what they are
        super().__init__()

    def _clear(self) -> None:
        self._first: list[float] = []
        self._first_loss = 0.0
        self._highest = 0.0
        self._began = 0.0
        self._rows = 0
        self._sum = 0.0
        self._blocks = 0
        self._latch = Latch(calm=1, repeat=3)

    def update(self, row: Row) -> Finding | None:
        if self._blocks >= BLOCKS:
            return None
        values = row.values
        self._entropy = values.get(LABEL_ENTROPY, self._entropy)
        loss, lr = values.get(LOSS), values.get(LR_PLANNED) or values.get(LR)
        if loss is None or not lr or not isfinite(loss):
            return None
        if not self._first:
            ratio = values.get(UPDATE_RATIO, 0.0)
            if row.step > 1 or not 0.0 < ratio < inf:
                self._blocks = BLOCKS if row.step > 1 else 0
                return None
            self._first, self._first_loss = [row.step, ratio, lr], loss
        if lr > self._highest:
            self._highest = lr
        if not self._rows:
            self._began = self._highest
        self._rows += 1
        self._sum += loss
        if self._rows < BLOCK:
            return None
        mean, full = self._sum / BLOCK, self._began >= UP * self._highest
        self._rows, self._sum = 0, 0.0
        self._blocks = BLOCKS if mean < LEARNED * self._entropy else self._blocks + 1
        return self._judge(row, mean) if full else None

    def _judge(self, row: Row, mean: float) -> Finding | None:
        entropy = self._entropy
        step, ratio, lr = self._first
        carried = ratio * self._highest / lr
        guesses = entropy > 0.0 and mean >= NEAR * entropy
        if not self._latch.step(
            guesses and self._first_loss >= FIRST_FALL * entropy and carried >= LIMIT
        ):
            return None
        return self._finding(
            row,
            "lr_too_high",
            "alarm",
            "error",
            metric=LOSS,
            score=carried / LIMIT,
            message=f"a mean loss of {mean:.4g} is no better than guessing labels by their "
            f"frequency ({entropy:.4g}); at this rate the first step would have changed the "
            f"weights by {carried:.2g} of their norm",
            evidence=(
                Evidence(metric=UPDATE_RATIO, step=int(step), value=ratio),
                Evidence(metric=LR, step=int(step), value=lr),
                *evidence_of(row, LR, LOSS),
            ),
        )
