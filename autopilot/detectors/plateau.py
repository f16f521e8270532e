"""A loss that fell at first and then stands at a constant although the weights still move."""

from math import isfinite, log

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import LOSS, LR, LR_PLANNED, UPDATE_RATIO

FROM_START = 10
SETTLE = 60
BLOCK = 50
BLOCKS = 3
MOVING = 3e-3
FIRST_FALL = 0.1
STILL = 0.01


class Plateau(BaseDetector):
    """Report a loss whose means over three blocks of fifty rows differ by under one percent.

    Only early, in a run seen from its start, after a first fall of a tenth, at a rate not decayed
    below half of its highest, and only while updates are large (above 3e-3 of the weights): a
    converged or fine-tuned run is flat too, but its weights hardly move. Typical is a network that
    collapsed to the frequencies of its labels; nothing done in place repaired one.

    Compare Xiong et al. 2020, arXiv 2002.04745 (post-norm transformers without warm-up).

    >>> detector = Plateau()
    >>> rows = [
    ...     Row(s, {"loss": max(4.6 - 0.1 * s, 3.25), "lr": 0.02, "update_ratio": 0.007})
    ...     for s in range(260)
    ... ]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('plateau', 209)]
    """

    __slots__ = (
        "_first",
        "_highest",
        "_latch",
        "_lr",
        "_means",
        "_ratio",
        "_rows",
        "_sum",
        "_watching",
    )
    name = "plateau"
    metrics: tuple[str, ...] = (LOSS, UPDATE_RATIO)
    _kept = (
        "_first",
        "_highest",
        "_latch",
        "_lr",
        "_means",
        "_ratio",
        "_rows",
        "_sum",
        "_watching",
    )

    def _clear(self) -> None:
        self._rows = 0
        self._watching = True
        self._first = 0.0
        self._sum = 0.0
        self._means: list[float] = []
        self._ratio = 0.0
        self._lr = 0.0
        self._highest = 0.0
        self._latch = Latch(calm=1, repeat=2)

    def update(self, row: Row) -> Finding | None:
        if not self._watching:
            return None
        values = row.values
        ratio = values.get(UPDATE_RATIO)
        if ratio is not None:
            self._ratio = ratio
        loss = values.get(LOSS)
        if loss is None or not isfinite(loss):
            return None
        if loss <= 0.0 or (not self._rows and row.step > FROM_START):
            self._watching = False
            return None
        if not self._rows:
            self._first = log(loss)
        self._rows += 1
        if self._rows <= SETTLE:
            return None
        lr = values.get(LR_PLANNED, values.get(LR))
        if lr is not None:
            self._lr = lr
            self._highest = max(self._highest, lr)
        self._sum += log(loss)
        if (self._rows - SETTLE) % BLOCK:
            return None
        return self._close_block(row)

    def _close_block(self, row: Row) -> Finding | None:
        means = self._means
        means.append(self._sum / BLOCK)
        self._sum = 0.0
        if len(means) > BLOCKS:
            means.pop(0)
        if len(means) < BLOCKS:
            return None
        spread = max(means) - min(means)
        flat = spread < STILL and self._first - means[0] > FIRST_FALL
        sick = flat and self._ratio > MOVING and self._lr >= 0.5 * self._highest
        if not flat and not self._latch.on:
            self._watching = False  # it moved after its start: flat later on is convergence
            return None
        if not self._latch.step(sick):
            return None
        return self._finding(
            row,
            "plateau",
            "alarm",
            "warn",
            metric=LOSS,
            score=STILL / max(spread, 1e-6),
            message=f"the loss has stood at {row.values[LOSS]:.4g} for {BLOCK * BLOCKS} rows since "
            f"early on, while each step changes the weights by {self._ratio:.2g} of their norm",
            evidence=evidence_of(row, LOSS, LR),
        )
