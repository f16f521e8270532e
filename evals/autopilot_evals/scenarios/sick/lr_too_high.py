"""A learning rate far too high from the first step on.

The gradient norm does not show it; the update ratio does, as the median of steps 3 to 5: 0.02 when
tuned, 0.14 at 25 times the rate. It saturates at the high end, so that one reading is not enough
to find the rate: the first correction leads to about 0.06, the second to the tuned value.
"""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import TUNED_LR, constant, train


def build(seed: int, arm: Arm, steps: int) -> Setup:
    lr = TUNED_LR if arm == "reference" else 25 * TUNED_LR
    return train(seed, steps, constant(lr))


SCENARIO = Scenario(
    name="lr-too-high",
    title="Learning rate 25 times too high",
    family="damaged",
    cause="lr_too_high",
    summary="The attention saturates within twenty steps and the loss stays on a plateau. "
    "Lowering the rate later does not undo that; starting over with a lower one does.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.scale(0.05),
        moves.restart_and_scale(0.25),
        moves.restart_and_scale(0.1),
        moves.restart_and_scale(0.05),
    ),
    acceptable=("rollback+scale_lr",),
    harmful=("scale_lr", "raise_lr"),
    delay=80,
    steps=1500,
    smoke_steps=150,
)
