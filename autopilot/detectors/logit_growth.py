"""Attention logits that saturate the softmax."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Evidence, Finding, Row
from autopilot.schema.metrics import LR, MAX_ATTENTION_LOGIT, UPDATE_RATIO

LIMIT = 100.0
GROWTH = 3.0
READINGS = 2
SOUND = 0.3
"""Share of the limit up to which attention is still soft enough to learn from."""


class LogitGrowth(BaseDetector):
    """Report a largest attention logit above 100, grown at least threefold in this run.

    The growth is asked for because some pretrained models are above 100 from their first step and
    healthy. Two readings running; saturated attention does not come back by itself, and neither
    does it with a lower rate in place, nor from a state in which it is half saturated: the finding
    cites the last reading that was sound, which dates the onset, and the first step's update ratio
    and rate where they were seen: how many times too high the rate is follows from these.

    Wortsman et al. 2023, arXiv 2309.14322; Kimi K2, arXiv 2507.20534 (acts at 100).

    >>> detector = LogitGrowth()
    >>> rows = [Row(s, {"max_attention_logit": x}) for s, x in enumerate([2.0, 90.0, 300.0, 360.0])]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('logit_growth', 3)]
    """

    __slots__ = ("_first", "_latch", "_lowest", "_run", "_sound")
    name = "logit_growth"
    metrics: tuple[str, ...] = (MAX_ATTENTION_LOGIT, UPDATE_RATIO)
    _kept = __slots__

    def __init__(self) -> None:
        self._lowest = 0.0
        super().__init__()

    def _clear(self) -> None:
        # The lowest reading outlives a reset: what counts as grown is a fact of the run.
        self._run = 0
        self._sound: list[float] = []
        self._first: list[float] = []
        self._latch = Latch(calm=2, repeat=10)

    def update(self, row: Row) -> Finding | None:
        if row.step <= 1 and UPDATE_RATIO in row.values and LR in row.values:
            self._first = [row.step, row.values[UPDATE_RATIO], row.values[LR]]
        logit = row.values.get(MAX_ATTENTION_LOGIT)
        if logit is None or not isfinite(logit):
            return None
        if logit > 0.0 and (not self._lowest or logit < self._lowest):
            self._lowest = logit
        if logit <= SOUND * LIMIT:
            self._sound = [row.step, logit]
        if logit <= LIMIT or logit <= GROWTH * self._lowest:
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run < READINGS or not self._latch.step(True):
            return None
        return self._finding(
            row,
            "logit_growth",
            "alarm",
            "error",
            metric=MAX_ATTENTION_LOGIT,
            score=logit / LIMIT,
            message=f"the largest attention logit is {logit:.4g} (limit {LIMIT:g}; lowest in this "
            f"run {self._lowest:.3g})",
            evidence=(*self._earlier(), *evidence_of(row, MAX_ATTENTION_LOGIT, LR)),
        )

    def _earlier(self) -> list[Evidence]:
        cited: list[tuple[str, float, float]] = []
        if self._first:
            step, ratio, lr = self._first
            cited += [(UPDATE_RATIO, step, ratio), (LR, step, lr)]
        if self._sound:
            step, logit = self._sound
            cited.append((MAX_ATTENTION_LOGIT, step, logit))
        return [Evidence(metric=m, step=int(step), value=value) for m, step, value in cited]
