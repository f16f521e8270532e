"""A learning rate far too low from the first step on.

The update ratio tells: 0.0013 at a 25th of the tuned rate, 0.02 when tuned.
"""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import TUNED_LR, constant, train


def build(seed: int, arm: Arm, steps: int) -> Setup:
    lr = TUNED_LR if arm == "reference" else TUNED_LR / 25
    return train(seed, steps, constant(lr))


SCENARIO = Scenario(
    name="lr-too-low",
    title="Learning rate 25 times too low",
    family="misdriven",
    cause="lr_too_low",
    summary="The loss falls smoothly, without noise and far too slowly. The weights are sound: "
    "the rate can be raised in place.",
    build=build,
    moves=(*moves.REFLEXES, moves.scale(4), moves.scale(16), moves.scale(25), moves.scale(200)),
    acceptable=("raise_lr",),
    harmful=("scale_lr", "rollback"),
    delay=60,
)
