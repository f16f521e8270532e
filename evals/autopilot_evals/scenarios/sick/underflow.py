"""A loss scale so small that gradients vanish in half precision.

No update is skipped and nothing is infinite: only the gradient norm has fallen.
"""

from dataclasses import replace

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.half import HalfGradients, in_half
from autopilot_evals.scenarios.training import draw, train, warmup_cosine

FAULTY = 2.0**-18


def build(seed: int, arm: Arm, steps: int) -> Setup:
    at = int(steps * draw(seed, "underflow", 0.2, 0.4))

    def before_step(half: HalfGradients, step: int) -> None:
        if arm == "sick" and step == at:
            half.scale = FAULTY

    setup = in_half(train(seed, steps, warmup_cosine(steps)), before_step, least=2.0**-20)
    return replace(setup, fault_step=at)


SCENARIO = Scenario(
    name="loss-scale-underflow",
    title="Loss scale set to 2^-18",
    family="misdriven",
    cause="loss_scale_fault",
    summary="Most gradients are below what half precision can hold and become zero; no update is "
    "skipped, and the loss goes its way slowly. The scale's default helps, in place.",
    build=build,
    moves=(*moves.REFLEXES, moves.RESET, moves.knob("loss_scale", HalfGradients.default)),
    acceptable=("set_knob",),
    harmful=("scale_lr",),
    delay=40,
)
