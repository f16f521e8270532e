"""Hardware that corrupts a few rows of a weight matrix, silently."""

from dataclasses import replace

import torch

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.gpt import GPT
from autopilot_evals.scenarios.once import once
from autopilot_evals.scenarios.training import draw, sized, train, warmup_cosine

ROWS = 8


def build(seed: int, arm: Arm, steps: int) -> Setup:
    at = int(steps * draw(seed, "bit-flip", 0.4, 0.6))
    setup = train(seed, steps, warmup_cosine(steps), batches=sized(seed, steps), fault_step=at)
    assert isinstance(setup.model, GPT)
    weight = setup.model.blocks[seed % 2].get_parameter("merge.weight")

    @torch.no_grad()
    def flip() -> None:
        # What one flipped bit of the exponent does to a number.
        weight[:ROWS] *= 2.0**10

    return setup if arm == "reference" else replace(setup, before_step=once(at, flip))


SCENARIO = Scenario(
    name="bit-flip",
    title="Weights corrupted by hardware",
    family="damaged",
    cause="silent_corruption",
    summary="Eight rows of a matrix are multiplied by 1,024 in one step that is otherwise like any "
    "other. Going back and playing the same steps again is all it takes.",
    build=build,
    moves=(*moves.REFLEXES, moves.CLIP, moves.RESET, moves.back_and_skip(60)),
    acceptable=("rollback", "rollback+skip_batches"),
    harmful=("scale_lr", "set_grad_clip"),
    delay=12,
)
