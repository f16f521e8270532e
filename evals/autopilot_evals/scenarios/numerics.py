"""Faults of arithmetic: a loss scale that overflows, a large epsilon, exploding gradients.

An overflow shows as skipped updates, a large epsilon as an ``eps_share`` of 1 (healthy: 0.03),
exploding gradients as a norm of 100 to 1000 times its median one to three steps before the first
value that is not finite. The loss shows the first two not at all.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from autopilot_evals.scenarios.base import Arm, Knob, Scenario, Setup
from autopilot_evals.scenarios.rnn import RNN
from autopilot_evals.scenarios.text import corpus
from autopilot_evals.scenarios.training import backward, draw, train, warmup_cosine


class HalfGradients:
    """Static loss scaling: gradients pass through half precision, as in mixed precision.

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


def loss_scale(seed: int, arm: Arm, steps: int) -> Setup:
    setup = train(seed, steps, warmup_cosine(steps))
    half = HalfGradients(setup.optimizer)
    at = int(steps * draw(seed, "loss-scale", 0.2, 0.4))

    def before_step(step: int) -> None:
        if arm == "sick" and step == at:
            half.scale = 2.0**40

    def update() -> None:
        if not half.skipped:
            setup.optimizer.step()
        setup.scheduler.step()
        setup.optimizer.zero_grad()

    knob = Knob("loss_scale", half.default, 1.0, 2.0**40, half.get, half.set)
    return replace(
        setup,
        backward=half.backward,
        update=update,
        before_step=before_step,
        metrics=half.metrics,
        knobs=(knob,),
        fault_step=at,
    )


def epsilon(seed: int, arm: Arm, steps: int) -> Setup:
    return train(seed, steps, warmup_cosine(steps), eps=1e-8 if arm == "reference" else 0.1)


def rising(step: int) -> float:
    """Raise the learning rate over 80 steps to one that the network bears only if clipped."""
    return 1.5 * min(1.0, (step + 1) / 80)


def exploding(seed: int, arm: Arm, steps: int) -> Setup:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RNN(len(corpus().symbols), width=(48, 64, 80)[seed % 3])
    optimizer = SGD(model.parameters(), lr=1.0)
    setup = train(seed, steps, rising, model=model, optimizer=optimizer)
    if arm == "sick":
        return setup

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        setup.update()

    return replace(setup, update=update)


LOSS_SCALE = Scenario(
    name="loss-scale",
    title="Loss scale set to 2^40",
    family="misdriven",
    cause="loss_scale_fault",
    summary="Every gradient overflows half precision and every update is skipped, so the loss "
    "stands still. No change of learning rate helps; the scale's default does, in place.",
    build=loss_scale,
)
EPSILON = Scenario(
    name="epsilon-too-large",
    title="Adam's epsilon at 0.1",
    family="misdriven",
    cause="dead_update",
    summary="Epsilon exceeds the root of the second moment of nearly all parameters, which makes "
    "Adam a slow gradient descent at a learning rate that is otherwise right.",
    build=epsilon,
)
EXPLODING = Scenario(
    name="exploding-gradients",
    title="A recurrent network without clipping",
    family="damaged",
    cause="non_finite",
    summary="While the learning rate rises, the gradient norm grows a thousandfold within a few "
    "steps and then is not finite. By then the weights are lost: going back and clipping helps.",
    build=exploding,
)
