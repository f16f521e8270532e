"""An Adam epsilon so large that it, and not the gradient, sets the size of the steps."""

from autopilot.detectors.base import BaseDetector, evidence_of
from autopilot.detectors.latch import Latch
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import EPS_SHARE, UPDATE_RATIO

SHARE = 0.5
READINGS = 20
FIRST_STEP = 10


class EpsDominated(BaseDetector):
    """Report an epsilon above sqrt(v) for most parameters, sustained over twenty readings.

    Then Adam degrades to slow gradient descent: at an epsilon of 0.1 the update ratio falls about
    tenfold at an unchanged learning rate, and setting epsilon back repairs it in place. OLMo 2 went
    from 1e-5 to 1e-8 for this (arXiv 2501.00656); Wortsman et al. 2023, arXiv 2309.14322, section
    3.4, on small epsilon at scale.

    >>> detector = EpsDominated()
    >>> rows = [Row(s, {"eps_share": 0.99}) for s in range(10, 30)]
    >>> [(f.kind, f.step) for row in rows if (f := detector.update(row))]
    [('dead_update', 29)]
    """

    __slots__ = ("_latch", "_run")
    name = "eps_dominated"
    metrics: tuple[str, ...] = (EPS_SHARE,)
    _kept = ("_run", "_latch")

    def _clear(self) -> None:
        self._run = 0
        self._latch = Latch(calm=3)

    def update(self, row: Row) -> Finding | None:
        share = row.values.get(EPS_SHARE)
        if share is None or row.step < FIRST_STEP:
            return None
        if not share > SHARE:
            self._run = 0
            if self._latch.on:
                self._latch.step(False)
            return None
        self._run += 1
        if self._run < READINGS or not self._latch.step(True):
            return None
        return self._finding(
            row,
            "dead_update",
            "invariant",
            "error",
            metric=EPS_SHARE,
            score=share,
            message=f"Adam's eps exceeds sqrt(v) for {share:.0%} of the parameters over "
            f"{self._run} readings: they are hardly updated",
            evidence=evidence_of(row, EPS_SHARE, UPDATE_RATIO),
        )
