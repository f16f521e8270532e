"""A loss scale that overflows half precision.

It shows as skipped updates; the loss stands still, which a loss may do.
"""

from dataclasses import replace

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.half import HalfGradients, in_half
from autopilot_evals.scenarios.training import draw, train, warmup_cosine

FAULTY = 2.0**40


def build(seed: int, arm: Arm, steps: int) -> Setup:
    at = int(steps * draw(seed, "loss-scale", 0.2, 0.4))

    def before_step(half: HalfGradients, step: int) -> None:
        if arm == "sick" and step == at:
            half.scale = FAULTY

    setup = in_half(train(seed, steps, warmup_cosine(steps)), before_step)
    return replace(setup, fault_step=at)


SCENARIO = Scenario(
    name="loss-scale",
    title="Loss scale set to 2^40",
    family="misdriven",
    cause="loss_scale_fault",
    summary="Every gradient overflows half precision and every update is skipped, so the loss "
    "stands still. No change of learning rate helps; the scale's default does, in place.",
    build=build,
    moves=(*moves.REFLEXES, moves.RESET, moves.knob("loss_scale", HalfGradients.default)),
    acceptable=("set_knob",),
    harmful=("scale_lr",),
    delay=40,
)
