"""The step waits for its data."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.detectors.running_median import RunningMedian
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import DATA_WAIT, STEP_TIME

IN_A_ROW = 20
SHARE = 0.5
FACTOR = 3.0


class DataWait(BaseDetector):
    """Report a data wait of over half the step, thrice its own median, for twenty rows.

    It costs time and no quality: the optimizer must be left alone (on a stalled run, halving the
    learning rate cost 0.044 nats and going back 0.056; the loader's restart nothing).

    Compare MegaScale, arXiv 2402.15627, section 5 (input pipeline and stragglers).

    >>> detector = DataWait()
    >>> rows = [Row(s, {"step_time": 0.01, "data_wait": 0.001}) for s in range(40)]
    >>> rows += [Row(s, {"step_time": 0.03, "data_wait": 0.02}) for s in range(40, 60)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('stall', 59)]
    """

    __slots__ = ("_latch", "_median", "_run")
    name = "data_wait"
    metrics: tuple[str, ...] = (DATA_WAIT,)
    _kept = ("_run", "_median", "_latch")

    def _clear(self) -> None:
        self._run = 0
        self._median = RunningMedian()
        self._latch = Latch(calm=20)

    def update(self, row: Row) -> Finding | None:
        values = row.values
        wait = values.get(DATA_WAIT)
        total = values.get(STEP_TIME)
        if wait is None or total is None or not isfinite(wait):
            return None
        median = self._median
        usual = median.value
        median.add(wait)
        if not (wait > SHARE * total and wait > FACTOR * usual and median.ready):
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run < IN_A_ROW or not self._latch.step(True):
            return None
        return self._finding(
            row,
            "stall",
            "invariant",
            "warn",
            metric=DATA_WAIT,
            score=wait / usual if usual > 0.0 else wait / total,
            message=f"{wait:.3g} s of a step of {total:.3g} s are spent waiting for data; usual "
            f"are {usual:.3g} s",
            evidence=evidence_of(row, DATA_WAIT, STEP_TIME),
        )
