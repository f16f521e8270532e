"""One source of the data that gets worse while the model learns from all the others."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import LOSS

RISE = 1.25
ABOVE_OTHERS = 1.5
READINGS = 10
OTHERS = 2
SOURCES = 32
_MEMORY = 0.2
_KNOWN_AFTER = 5


class BadShard(BaseDetector):
    """Report a source whose loss rises by a quarter above its own best while the others' falls.

    Over ten of its rows running, and by then half as much again as theirs. A source that is merely
    hard falls slowly, but it falls. What a model that learns does worse and worse on contradicts
    the rest: wrong labels, another encoding. The loss of all sources together hides it. Leaving
    that source out gained a third of the loss in measurement, leaving out another one harmed.

    Asked for are at least three sources that the loop names; over 32 it does not look.

    >>> detector = BadShard()
    >>> rows = [
    ...     Row(s, {"loss": 2.3 + 0.01 * s if s % 4 == 2 else 2.3 - 0.01 * s}, source=f"s{s % 4}")
    ...     for s in range(150)
    ... ]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('bad_shard', 122)]
    """

    __slots__ = ("_at_best", "_bests", "_latch", "_levels", "_names", "_rows", "_runs", "_total")
    name = "bad_shard"
    metrics: tuple[str, ...] = (LOSS,)
    _kept = __slots__

    def _clear(self) -> None:
        self._names: list[str] = []
        self._rows: list[int] = []
        self._levels: list[float] = []
        self._bests: list[float] = []
        self._at_best: list[float] = []
        self._runs: list[int] = []
        self._total = 0.0
        self._latch = Latch(calm=5, repeat=20)

    def update(self, row: Row) -> Finding | None:
        source, loss = row.source, row.values.get(LOSS)
        if source is None or loss is None or not isfinite(loss) or len(self._names) > SOURCES:
            return None
        if source not in self._names:
            self._begin(source, loss)
            return None
        at = self._names.index(source)
        change = _MEMORY * (loss - self._levels[at])
        self._levels[at] += change
        self._total += change
        self._rows[at] += 1
        if self._rows[at] < _KNOWN_AFTER or len(self._names) <= OTHERS:
            return None
        return self._judge(row, at)

    def _begin(self, source: str, loss: float) -> None:
        self._names.append(source)
        self._rows.append(1)
        self._levels.append(loss)
        self._bests.append(loss)
        self._at_best.append(0.0)
        self._runs.append(0)
        self._total += loss

    def _judge(self, row: Row, at: int) -> Finding | None:
        level = self._levels[at]
        others = (self._total - level) / (len(self._names) - 1)
        if level <= self._bests[at] or not self._at_best[at]:
            self._bests[at], self._at_best[at] = level, others
        worse = level > RISE * self._bests[at] and level > ABOVE_OTHERS * others > 0.0
        if not (worse and others < self._at_best[at]):
            self._runs[at] = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._runs[at] += 1
        if self._runs[at] < READINGS or not self._latch.step(True):
            return None
        return self._report(row, at, others)

    def _report(self, row: Row, at: int, others: float) -> Finding:
        level, best = self._levels[at], self._bests[at]
        return self._finding(
            row,
            "bad_shard",
            "alarm",
            "warn",
            metric=LOSS,
            score=level / best,
            message=f"the loss of source {self._names[at][:60]!r} rose to {level:.4g} from its "
            f"best of {best:.4g}, while that of the others fell from {self._at_best[at]:.4g} to "
            f"{others:.4g}",
            evidence=evidence_of(row, LOSS),
            source=row.source,
        )
