"""Updates that are skipped one after the other: training stands still."""

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, FindingKind, Row
from autopilot.schema.metrics import LOSS_SCALE, UPDATE_SKIPPED

IN_A_ROW = 8


class SkippedUpdates(BaseDetector):
    """Report eight skipped updates in a row.

    With a loss scale that is a loss-scale fault: halving from any sane start finds a scale sooner,
    and once every step overflows, no learning rate changes anything (measured: exactly 0).
    Without one, updates are dead for another reason.

    Micikevicius et al. 2018, arXiv 1710.03740, section 3.2 (dynamic loss scaling).

    >>> detector = SkippedUpdates()
    >>> rows = [Row(s, {"update_skipped": 1.0, "loss_scale": 2.0**40}) for s in range(8)]
    >>> [found.kind for row in rows if (found := detector.update(row))]
    ['loss_scale_fault']
    """

    __slots__ = ("_first", "_latch", "_run")
    name = "skipped_updates"
    metrics: tuple[str, ...] = (UPDATE_SKIPPED,)
    _kept = ("_run", "_first", "_latch")

    def _clear(self) -> None:
        self._run = 0
        self._first = 0
        self._latch = Latch(calm=4)

    def update(self, row: Row) -> Finding | None:
        skipped = row.values.get(UPDATE_SKIPPED)
        if skipped is None:
            return None
        if skipped != 1.0:
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run == 1:
            self._first = row.step
        if self._run < IN_A_ROW or not self._latch.step(True):
            return None
        scale = row.values.get(LOSS_SCALE)
        kind: FindingKind = "dead_update" if scale is None else "loss_scale_fault"
        where = "" if scale is None else f" at loss scale {scale:.4g}"
        first = Evidence(metric=UPDATE_SKIPPED, step=self._first, value=1.0)
        return self._finding(
            row,
            kind,
            "invariant",
            "error",
            metric=UPDATE_SKIPPED,
            score=float(self._run),
            message=f"{self._run} updates in a row were skipped{where}",
            evidence=(first, *evidence_of(row, UPDATE_SKIPPED, LOSS_SCALE)),
        )
