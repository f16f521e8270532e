"""All detectors over one run, each asked only about rows that concern it."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from autopilot.detectors.bad_shard import BadShard
from autopilot.detectors.collapse import Collapse
from autopilot.detectors.data_wait import DataWait
from autopilot.detectors.dead_units import DeadUnits
from autopilot.detectors.decay_too_high import DecayTooHigh
from autopilot.detectors.duplicate_batch import DuplicateBatch
from autopilot.detectors.eps_dominated import EpsDominated
from autopilot.detectors.grad_alarm import GradAlarm
from autopilot.detectors.guessing import Guessing
from autopilot.detectors.logit_growth import LogitGrowth
from autopilot.detectors.loss_alarm import LossAlarm
from autopilot.detectors.loss_scale_low import LossScaleLow
from autopilot.detectors.lr_jump import LRJump
from autopilot.detectors.lr_too_low import LRTooLow
from autopilot.detectors.non_finite import NonFinite
from autopilot.detectors.outlier import Outlier
from autopilot.detectors.overfit import Overfit
from autopilot.detectors.param_jump import ParamJump
from autopilot.detectors.plateau import Plateau
from autopilot.detectors.schedule_fault import ScheduleFault
from autopilot.detectors.skipped import SkippedUpdates
from autopilot.detectors.slow_drift import SlowDrift
from autopilot.detectors.staleness import Staleness
from autopilot.detectors.throughput_drop import ThroughputDrop
from autopilot.detectors.trend import Trend
from autopilot.detectors.unchanged import ParametersUnchanged
from autopilot.detectors.update_ratio_high import UpdateRatioHigh
from autopilot.ports import Detector
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import GRAD_NORM, LOSS

Update = Callable[[Row], Finding | None]
_PLANS = 256  # distinct sets of metrics remembered; a run has a handful
_KEEP_EVERY = 25
_KEPT = 256


def default_detectors(loss: Trend | None = None, grad: Trend | None = None) -> tuple[Detector, ...]:
    """Every detector, sharing one trend of the loss and one of the gradient norm.

    The order is that of findings on one row: invariants, then watches, then alarms.
    """
    loss = loss or Trend(LOSS)
    grad = grad or Trend(GRAD_NORM)
    return (
        NonFinite(),
        ScheduleFault(),
        LRJump(),
        SkippedUpdates(),
        LossScaleLow(),
        ParametersUnchanged(),
        EpsDominated(),
        DecayTooHigh(),
        ParamJump(),
        DuplicateBatch(),
        DataWait(),
        Outlier(LOSS, loss),
        Outlier(GRAD_NORM, grad),
        Staleness(),
        LossAlarm(loss),
        GradAlarm(loss, grad),
        SlowDrift(loss),
        UpdateRatioHigh(),
        Guessing(),
        LRTooLow(),
        LogitGrowth(),
        BadShard(),
        Overfit(),
        Plateau(),
        Collapse(),
        DeadUnits(),
        ThroughputDrop(),
    )


class _Past(NamedTuple):
    """What the trends knew after a step."""

    step: int
    loss: dict[str, Any]
    grad: dict[str, Any]


class DetectorBank:
    """Runs detectors over the rows of a run, in order.

    A new branch, or steps that go backwards (a resume), restart every baseline. On a new branch the
    trends of the loss and the gradient norm go on from what they were at the step that was gone
    back to, so that a fault which comes again is seen at once; what a resume changed is not known.

    >>> bank = DetectorBank()
    >>> [finding.kind for finding in bank.update(Row(3, {"loss": float("nan")}))]
    ['non_finite']
    """

    __slots__ = ("_branch", "_past", "_plans", "_rows", "_step", "detectors", "grad", "loss")

    def __init__(self, detectors: Sequence[Detector] | None = None) -> None:
        self.loss = Trend(LOSS)
        self.grad = Trend(GRAD_NORM)
        given = default_detectors(self.loss, self.grad) if detectors is None else detectors
        self.detectors: tuple[Detector, ...] = tuple(given)
        self._plans: dict[tuple[str, ...], tuple[Update, ...]] = {}
        self._branch: str | None = None
        self._past: deque[_Past] = deque(maxlen=_KEPT)
        self._rows = 0
        self._step = -1

    def update(self, row: Row) -> list[Finding]:
        """Show the row to every detector that it concerns; what they found."""
        step = row.step
        if row.branch != self._branch:
            if self._branch is not None:
                self.reset()
                self._go_back(step)
            self._branch = row.branch
        elif step < self._step:
            self.reset()
            self._past.clear()
        self._step = step
        names = tuple(row.values)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plan(names)
        found: list[Finding] = []
        for update in plan:
            finding = update(row)
            if finding is not None:
                found.append(finding)
        self._rows += 1
        if self._rows % _KEEP_EVERY == 0 and self.loss.ready and not self.loss.held:
            self._past.append(_Past(step, self.loss.state_dict(), self.grad.state_dict()))
        return found

    def _go_back(self, step: int) -> None:
        """Let the trends go on from where they were before that step, if they were there."""
        while self._past and self._past[-1].step >= step:
            self._past.pop()
        if self._past:
            self.loss.load_state_dict(self._past[-1].loss)
            self.grad.load_state_dict(self._past[-1].grad)

    def reset(self) -> None:
        """Restart every baseline: an intervention changed the run.

        Rules on a trend are quiet for its warm-up of 30 rows; invariants and the early rules on
        the update ratio are armed at once.
        """
        self.loss.reset()
        self.grad.reset()
        for detector in self.detectors:
            detector.reset()

    def state_dict(self) -> dict[str, Any]:
        """Everything that ``load_state_dict`` needs to go on, as JSON-able values."""
        return {
            "branch": self._branch,
            "step": self._step,
            "detectors": {detector.name: detector.state_dict() for detector in self.detectors},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; a detector it does not know starts afresh."""
        self._branch = state["branch"]
        self._step = state["step"]
        for detector in self.detectors:
            known = state["detectors"].get(detector.name)
            if known is not None:
                detector.load_state_dict(known)

    def _plan(self, names: tuple[str, ...]) -> tuple[Update, ...]:
        present = frozenset(names)
        plan = tuple(
            detector.update
            for detector in self.detectors
            if not present.isdisjoint(detector.metrics)
        )
        if len(self._plans) < _PLANS:
            self._plans[names] = plan
        return plan
