"""Everything that happens around ``optimizer.step()``: measured, judged, clipped, in force."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from autopilot.policy import Reflexes
from autopilot.schema import metrics
from autopilot_trainer.hyperparameters import Hyperparameters
from autopilot_trainer.learning_rate import LearningRate, Plan
from autopilot_trainer.reflexes import UpdateReflex
from autopilot_trainer.telemetry import Telemetry, Values

_STEADY = 5
"""Steps in a row with an update after which every step is expected to have one."""


class StepHooks:
    """Hooks one optimizer.

    A fault in here never reaches the loop: it is reported, what was put in force is taken out, and
    the update goes on as the loop wrote it.

    Args:
        current_step: Completed steps, for the learning-rate plan.
        on_reflex: Told of every skipped update, with the norm.
        on_fault: Told of every fault of ours.

    Attributes:
        values: What was measured of the step that is under way; the session takes it.
        max_norm: Clip the global gradient norm to this.
        pending: The latest step made no update: its gradients wait for a later one.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        plan: Plan | None,
        reflexes: Reflexes,
        telemetry: bool,
        current_step: Callable[[], int],
        on_reflex: Callable[[str, float], None],
        on_fault: Callable[[str], None],
    ) -> None:
        self.optimizer = optimizer
        self.learning_rate = LearningRate(optimizer, plan)
        self.hyperparameters = Hyperparameters(optimizer)
        self.telemetry = Telemetry(optimizer, enabled=telemetry)
        self.reflex = UpdateReflex(reflexes)
        self.max_norm: float | None = None
        self.clipped_norm: float | None = None
        self.values: Values = {}
        self.pending = False
        self._current_step = current_step
        self._on_reflex = on_reflex
        self._on_fault = on_fault
        self._entered = False
        self._skipped = False
        self._attempted = False
        self._steady = False
        self._in_a_row = 0
        self._post_hook = optimizer.register_step_post_hook(self._after)
        self._pre_hook: RemovableHandle | None = None
        self.arm()

    def arm(self) -> None:
        """Hook what comes before the update too, once there is anything to do there.

        Call it after every change of what is in force. A run that measures nothing and in which
        nobody intervened then pays for one hook only.
        """
        if self._pre_hook is None and (
            self.telemetry.enabled
            or not self.learning_rate.neutral
            or self.hyperparameters
            or self.max_norm is not None
        ):
            self._pre_hook = self.optimizer.register_step_pre_hook(self._before)

    def remove(self) -> None:
        """Take the hooks out; the optimizer is as it was."""
        self._post_hook.remove()
        if self._pre_hook is not None:
            self._pre_hook.remove()

    def take(self) -> Values:
        """What was measured since the last call; says too whether an update was left out.

        A loop that accumulates gradients makes steps without an update as a matter of course. Only
        where every step had one does a step without one count as left out.
        """
        values, self.values = self.values, {}
        if self._entered:
            self._put_back()  # an update that raised never came to its end
        attempted, self._attempted = self._attempted, False
        self.pending = not attempted
        if self.telemetry.enabled:
            self._in_a_row = self._in_a_row + 1 if attempted else 0
            self._steady = self._steady or self._in_a_row >= _STEADY
            left_out = self._skipped or (self._steady and not attempted)
            values[metrics.UPDATE_SKIPPED] = 1.0 if left_out else 0.0
            self._skipped = False
        return values

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        try:  # what is in force comes first: no later fault of ours may take it out of force
            self._skipped, self._attempted, self._entered = False, True, True
            lr, measures = self.learning_rate, self.telemetry.enabled
            if measures or not lr.neutral:
                planned = lr.enter(self._current_step())
                if measures:
                    self.values[metrics.LR_PLANNED] = planned
            if self.hyperparameters:
                self.hyperparameters.enter()
            if measures or self.max_norm is not None:
                self._inspect()
        except Exception as error:  # the run goes on without us
            self._on_fault(f"before the update: {error!r}")

    def _inspect(self) -> None:
        parameters, gradients = self.telemetry.gradients()
        norm = self.telemetry.grad_norm(gradients)
        self.values[metrics.GRAD_NORM] = norm
        reflex = None
        if self.telemetry.enabled:
            reflex = self.reflex.judge(norm, clipped=self.max_norm is not None)
        if reflex is not None:
            for parameter in parameters:
                parameter.grad = None
            self._skipped = True
            self._on_reflex(reflex, norm)
            return
        if self.reflex.loud(norm):
            self.telemetry.look_closer()
        if self.max_norm is not None:
            self._clip(gradients, norm)
        self.telemetry.before_update(parameters)

    def _clip(self, gradients: list[torch.Tensor], norm: float) -> None:
        assert self.max_norm is not None
        clipped = norm > self.max_norm
        if clipped:
            with torch.no_grad():
                torch._foreach_mul_(gradients, self.max_norm / (norm + 1e-6))
        self.clipped_norm = min(norm, self.max_norm)
        self.values[metrics.CLIPPED] = float(clipped)

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        try:
            self._attempted = True
            self.learning_rate.leave()
            if self._entered:
                self._entered = False
                if self.hyperparameters:
                    self.hyperparameters.leave()
                if not self._skipped:
                    self.telemetry.after_update(self.values)
        except Exception as error:  # the run goes on without us
            self._on_fault(f"after the update: {error!r}")

    def _put_back(self) -> None:
        self._entered = False
        self.learning_rate.put_back()
        self.hyperparameters.put_back()
