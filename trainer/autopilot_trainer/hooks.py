"""Everything that happens around ``optimizer.step()``: measured, judged, clipped, in force."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from autopilot.policy import Reflexes
from autopilot.schema import metrics
from autopilot_trainer.accumulation import Accumulation
from autopilot_trainer.freezing import Frozen
from autopilot_trainer.hyperparameters import Hyperparameters
from autopilot_trainer.learning_rate import LearningRate, Plan
from autopilot_trainer.optimizers import spans, together
from autopilot_trainer.reflexes import UpdateReflex
from autopilot_trainer.telemetry import Telemetry, Values

_STEADY = 5
"""Steps in a row with an update after which every step is expected to have one."""


@dataclass
class _Part:
    """One optimizer, and what is measured and judged of it alone.

    Attributes:
        span: Its groups among those of all; None where it is the only one.
        entered: Its update is under way.
        skipped: Its latest update was left out.
        attempted: It made or was to make one in this step.
    """

    number: int
    optimizer: Optimizer
    span: range | None
    telemetry: Telemetry
    reflex: UpdateReflex
    entered: bool = False
    skipped: bool = False
    attempted: bool = False

    @property
    def is_first(self) -> bool:
        """It is the one that detectors watch."""
        return self.number == 0

    @property
    def norm_name(self) -> str:
        """The metric of its gradient norm."""
        return metrics.GRAD_NORM if self.is_first else f"{metrics.GRAD_NORM}[{self.number}]"


class StepHooks:
    """Hooks the optimizers of one training.

    A fault in here never reaches the loop: it is reported, what was put in force is taken out, and
    the update goes on as the loop wrote it.

    Args:
        optimizers: The first is the one whose updates are measured closely; reflexes, clipping
            and what interventions put in force hold for each.
        current_step: Completed steps, for the learning-rate plan.
        on_reflex: Told of every skipped update, with the norm.
        on_fault: Told of every fault of ours.
        accumulation: Says at which steps an update was due, where the loop accumulates as told.

    Attributes:
        optimizer: All of them as one.
        frozen: Modules whose parameters no update moves.
        recomputes: The update calls back to the loop for its gradients, so that none can be
            withheld from it.
        values: What was measured of the step that is under way; the session takes it.
        loud: A gradient norm stood out since somebody last cleared this.
        max_norm: Clip the global gradient norm to this.
        pending: In the latest step an optimizer made no update: gradients wait for a later one.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        *,
        plan: Plan | None,
        reflexes: Reflexes,
        telemetry: bool,
        current_step: Callable[[], int],
        on_reflex: Callable[[str, float], None],
        on_fault: Callable[[str], None],
        accumulation: Accumulation | None = None,
    ) -> None:
        self.optimizer = together(optimizers)
        self._parts = [
            _Part(i, one, span, Telemetry(one, enabled=telemetry), UpdateReflex(reflexes))
            for i, (one, span) in enumerate(zip(optimizers, spans(optimizers), strict=True))
        ]
        self.frozen = Frozen(len(self._parts))
        self.recomputes = False
        self.learning_rate = LearningRate(self.optimizer, plan, parts=len(self._parts))
        self.hyperparameters = Hyperparameters(self.optimizer)
        self.telemetry = self._parts[0].telemetry
        self.max_norm: float | None = None
        self.clipped_norm: float | None = None
        self.values: Values = {}
        self.pending = False
        self.loud = False
        self._accumulation = accumulation
        self._current_step = current_step
        self._on_reflex = on_reflex
        self._on_fault = on_fault
        self._steady = False
        self._in_a_row = 0
        self._post_hooks = [
            part.optimizer.register_step_post_hook(partial(self._after, part))
            for part in self._parts
        ]
        self._pre_hooks: list[RemovableHandle] = []
        self.arm()

    def arm(self) -> None:
        """Hook what comes before the update too, once there is anything to do there.

        Call it after every change of what is in force. A run that measures nothing and in which
        nobody intervened then pays for one hook only.
        """
        if not self._pre_hooks and (
            self.telemetry.enabled
            or not self.learning_rate.neutral
            or self.hyperparameters
            or self.frozen
            or self.max_norm is not None
        ):
            self._pre_hooks = [
                part.optimizer.register_step_pre_hook(partial(self._before, part))
                for part in self._parts
            ]

    def remove(self) -> None:
        """Take the hooks out; the optimizers are as they were."""
        for hook in self._post_hooks + self._pre_hooks:
            hook.remove()

    def begin_again(self) -> None:
        """The training went to another state: what was learned of its course no longer holds."""
        for part in self._parts:
            part.reflex.reset()
            part.telemetry.restart()
        self.values.clear()

    def take(self) -> Values:
        """What was measured since the last call; says too whether an update was left out.

        A loop that accumulates gradients makes steps without an update as a matter of course. Only
        where every step had one does a step without one count as left out.
        """
        values, self.values = self.values, {}
        attempted, skipped, self.pending = False, False, False
        for part in self._parts:
            if part.entered:
                self._put_back(part)  # an update that raised never came to its end
            attempted = attempted or part.attempted
            skipped = skipped or part.skipped
            self.pending = self.pending or not part.attempted
            part.attempted = part.skipped = False
        if self.telemetry.enabled:
            self._in_a_row = self._in_a_row + 1 if attempted else 0
            self._steady = self._steady or self._in_a_row >= _STEADY
            due = self._accumulation is None or self._accumulation.was_due
            left_out = skipped or (self._steady and due and not attempted)
            values[metrics.UPDATE_SKIPPED] = 1.0 if left_out else 0.0
        return values

    def _before(self, part: _Part, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:  # what is in force comes first: no later fault of ours may take it out of force
            part.skipped, part.attempted, part.entered = False, True, True
            lr, measures = self.learning_rate, self.telemetry.enabled
            if measures or not lr.neutral:
                planned = lr.enter(self._current_step())
                if measures and part.is_first:
                    self.values[metrics.LR_PLANNED] = planned
            if self.hyperparameters:
                self.hyperparameters.enter()
            self.recomputes = any(args[1:]) or kwargs.get("closure") is not None
            if self.frozen:
                self.frozen.withhold()
            if measures or self.max_norm is not None:
                self._inspect(part)
        except Exception as error:  # the run goes on without us
            self._on_fault(f"before the update: {error!r}")

    def _inspect(self, part: _Part) -> None:
        parameters, gradients = part.telemetry.gradients()
        norm = part.telemetry.grad_norm(gradients)
        self.values[part.norm_name] = norm
        reflex = None
        if self.telemetry.enabled:
            reflex = part.reflex.judge(norm, clipped=self.max_norm is not None)
        if reflex is not None:
            for parameter in parameters:
                parameter.grad = None
            part.skipped = self.loud = True
            self._on_reflex(reflex, norm)
            return
        if part.reflex.loud(norm):
            self.loud = True
            part.telemetry.look_closer()
        if self.max_norm is not None:
            self._clip(gradients, norm)
        if part.is_first:
            part.telemetry.before_update(parameters)

    def _clip(self, gradients: list[torch.Tensor], norm: float) -> None:
        assert self.max_norm is not None
        clipped = norm > self.max_norm
        if clipped:
            with torch.no_grad():
                torch._foreach_mul_(gradients, self.max_norm / (norm + 1e-6))
        self.clipped_norm = min(norm, self.max_norm)
        self.values[metrics.CLIPPED] = max(float(clipped), self.values.get(metrics.CLIPPED, 0.0))

    def _after(self, part: _Part, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            part.attempted = True
            self.learning_rate.leave(part.number, part.span)
            self.frozen.give_back()
            if part.entered:
                part.entered = False
                if self.hyperparameters:
                    self.hyperparameters.leave(part.span)
                if part.is_first and not part.skipped:
                    part.telemetry.after_update(self.values)
        except Exception as error:  # the run goes on without us
            self._on_fault(f"after the update: {error!r}")

    def _put_back(self, part: _Part) -> None:
        part.entered = False
        self.learning_rate.put_back()
        self.hyperparameters.put_back()
        self.frozen.give_back()
