"""A held-out loss that rises while the training loss falls."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import LOSS, VAL_LOSS

EVALUATIONS = 2
DEVIATIONS = 3.0
RISE = 0.02
_MEMORY = 0.05
_FIRST = 4


class Overfit(BaseDetector):
    """Report a gap between held-out and training loss that rose over two evaluations.

    Asked for too: a held-out loss above its best by three robust deviations of its own noise and by
    two percent, at both evaluations, and a training loss no higher than at that best. Going back to
    the best and stopping there gained most in measurement (-0.83), more weight decay nearly as much
    (-0.79).

    Prechelt 1998, "Early Stopping - But When?", LNCS 1524, 55-69.

    >>> detector = Overfit()
    >>> rows = [
    ...     Row(s, {"loss": 4 - 0.02 * s} | ({"val_loss": 3.5 + 0.003 * abs(s - 50)} if s % 5 == 0
    ...         else {}))
    ...     for s in range(150)
    ... ]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('overfit', 80), ('overfit', 130)]
    """

    __slots__ = (
        "_best",
        "_best_step",
        "_best_train",
        "_count",
        "_gap",
        "_last",
        "_latch",
        "_noise",
        "_run",
        "_train",
    )
    name = "overfit"
    metrics: tuple[str, ...] = (VAL_LOSS, LOSS)
    _kept = (
        "_best",
        "_best_step",
        "_best_train",
        "_count",
        "_gap",
        "_last",
        "_latch",
        "_noise",
        "_run",
        "_train",
    )

    def _clear(self) -> None:
        self._train: float | None = None
        self._best = 0.0
        self._best_step = 0
        self._best_train = 0.0
        self._count = 0
        self._gap = 0.0
        self._last = 0.0
        self._noise = 0.0
        self._run = 0
        self._latch = Latch(calm=2, repeat=10)

    def update(self, row: Row) -> Finding | None:
        values = row.values
        loss = values.get(LOSS)
        if loss is not None and isfinite(loss):
            train = self._train
            self._train = loss if train is None else train + _MEMORY * (loss - train)
        held_out = values.get(VAL_LOSS)
        if held_out is None or self._train is None or not isfinite(held_out):
            return None
        return self._evaluate(row, held_out, self._train)

    def _evaluate(self, row: Row, held_out: float, train: float) -> Finding | None:
        gap = held_out - train
        rising = self._count > 0 and gap > self._gap
        if self._count:
            self._noise += (abs(held_out - self._last) - self._noise) / min(self._count, 10)
        self._count += 1
        self._gap = gap
        self._last = held_out
        if self._count == 1 or held_out < self._best:
            self._best, self._best_step, self._best_train = held_out, row.step, train
            rising = False
        bar = max(DEVIATIONS * 1.2533 * self._noise, RISE * abs(self._best))
        worse = held_out > self._best + bar and train <= self._best_train
        self._run = self._run + 1 if rising and worse else 0
        sick = self._run >= EVALUATIONS and self._count >= _FIRST
        if not self._latch.step(sick or (self._latch.on and worse)) or not worse:
            return None
        return self._finding(
            row,
            "overfit",
            "alarm",
            "warn",
            metric=VAL_LOSS,
            score=(held_out - self._best) / (1.2533 * self._noise) if self._noise else 0.0,
            message=f"held-out loss {held_out:.4g} is above its best of {self._best:.4g} at step "
            f"{self._best_step} while the training loss fell to {train:.4g}",
            evidence=(
                Evidence(metric=VAL_LOSS, step=self._best_step, value=self._best),
                *evidence_of(row, VAL_LOSS, LOSS),
            ),
        )
