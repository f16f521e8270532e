"""Steps that take longer than they used to."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.detectors.running_median import RunningMedian
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import STEP_TIME

IN_A_ROW = 20
FACTOR = 1.5


class ThroughputDrop(BaseDetector):
    """Report twenty rows running of step times above 1.5 times their long median.

    Healthy runs keep their 99th percentile below 1.28 times the median; slow steps around an
    evaluation or a checkpoint are single and stay below twenty in a row.

    Compare the straggler study arXiv 2505.05713 and MegaScale, arXiv 2402.15627.

    >>> detector = ThroughputDrop()
    >>> rows = [Row(s, {"step_time": 0.01 if s < 50 else 0.02}) for s in range(80)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('throughput_drop', 69)]
    """

    __slots__ = ("_latch", "_median", "_run")
    name = "throughput_drop"
    metrics: tuple[str, ...] = (STEP_TIME,)
    _kept = ("_run", "_median", "_latch")

    def _clear(self) -> None:
        self._run = 0
        self._median = RunningMedian()
        self._latch = Latch(calm=20)

    def update(self, row: Row) -> Finding | None:
        time = row.values.get(STEP_TIME)
        if time is None or not isfinite(time):
            return None
        usual = self._median.value
        self._median.add(time)
        if usual <= 0.0:
            return None
        if time <= FACTOR * usual:
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run < IN_A_ROW or not self._latch.step(True):
            return None
        return self._finding(
            row,
            "throughput_drop",
            "alarm",
            "warn",
            metric=STEP_TIME,
            score=time / usual,
            message=f"steps take {time:.3g} s, {time / usual:.2g} times the usual {usual:.3g} s",
            evidence=evidence_of(row, STEP_TIME),
        )
