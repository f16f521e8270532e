"""Static loss scaling: gradients pass through half precision, as in mixed precision."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from autopilot_evals.scenarios.base import Knob, Setup
from autopilot_evals.scenarios.training import backward


class HalfGradients:
    """Scales the loss, and casts the gradients to half precision and back.

    A step whose gradients overflow updates nothing, as ``torch.amp.GradScaler`` has it.
    """

    default = 2.0**12

    def __init__(self, optimizer: Optimizer) -> None:
        self.scale = self.default
        self.skipped = False
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def get(self) -> float:
        return self.scale

    def set(self, scale: float) -> None:
        self.scale = scale

    def backward(self, loss: Tensor) -> None:
        backward(loss * self.scale)
        for parameter in self.parameters:
            parameter.grad = parameter.grad.half().float() / self.scale
        self.skipped = any(not torch.isfinite(p.grad).all() for p in self.parameters)

    def metrics(self) -> dict[str, float]:
        return {"loss_scale": self.scale, "update_skipped": float(self.skipped)}


def in_half(
    setup: Setup, before_step: Callable[[HalfGradients, int], None], *, least: float = 1.0
) -> Setup:
    """Train with half-precision gradients, and with the knob ``loss_scale``.

    Args:
        setup: The training in full precision.
        before_step: Told of each step before it begins: here sits the fault.
        least: Lowest scale that the knob takes.
    """
    half = HalfGradients(setup.optimizer)

    def update() -> None:
        if not half.skipped:
            setup.optimizer.step()
        setup.scheduler.step()
        setup.optimizer.zero_grad()

    return replace(
        setup,
        backward=half.backward,
        update=update,
        before_step=lambda step: before_step(half, step),
        metrics=half.metrics,
        knobs=(Knob("loss_scale", half.get, half.set, least, 2.0**40),),
    )
