"""A weight decay that pulls the weights back as fast as the gradients build them up."""

from math import isfinite

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import LR, UPDATE_RATIO, WEIGHT_DECAY_RATE

RATE = 0.01
SHARE = 0.5
READINGS = 5
FIRST_STEP = 10


class DecayTooHigh(BaseDetector):
    """Report a decay of over a percent of the weights a step that is half of the step, or more.

    Weights then remember fewer than a hundred updates. Sound recipes remember thousands: the best
    memory of AdamW is about the length of a run, one over rate times decay (Wang and Aitchison
    2024, arXiv 2405.13698). A fast decay alone is not reported, because short runs with large
    updates bear one; in a sound one the decay is a small part of what a step does (Kosson et al.
    2023, arXiv 2305.17212). The update ratio itself looks healthy, and so does the loss's course,
    too high and level. A smaller decay in place mends it.

    >>> detector = DecayTooHigh()
    >>> values = {"weight_decay_rate": 0.02, "update_ratio": 0.025}
    >>> [(f.kind, f.step) for s in range(30) if (f := detector.update(Row(s, values)))]
    [('decay_too_high', 14)]
    """

    __slots__ = ("_latch", "_run")
    name = "decay_too_high"
    metrics: tuple[str, ...] = (WEIGHT_DECAY_RATE,)
    _kept = __slots__

    def _clear(self) -> None:
        self._run = 0
        self._latch = Latch(calm=3)

    def update(self, row: Row) -> Finding | None:
        rate = row.values.get(WEIGHT_DECAY_RATE)
        ratio = row.values.get(UPDATE_RATIO)
        if rate is None or ratio is None or row.step < FIRST_STEP:
            return None
        share = rate / ratio if isfinite(ratio) and ratio > 0.0 else 0.0
        if not (rate > RATE and share >= SHARE):
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run < READINGS or not self._latch.step(True):
            return None
        return self._finding(
            row,
            "decay_too_high",
            "invariant",
            "error",
            metric=WEIGHT_DECAY_RATE,
            score=rate / RATE,
            message=f"weight decay takes {rate:.2g} of the weights at every step, where the whole "
            f"step changes them by {ratio:.2g}: what is learned is forgotten in {1 / rate:.0f} "
            "steps",
            evidence=evidence_of(row, WEIGHT_DECAY_RATE, UPDATE_RATIO, LR),
        )
