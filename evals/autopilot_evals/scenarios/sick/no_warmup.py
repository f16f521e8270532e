"""A high learning rate from the very first step.

The median update ratio of steps 3 to 5 is several times that of a tuned run; after sixty steps the
attention is saturated and nothing in place brings it back.
"""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import PEAK_LR, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    if arm == "reference":
        return train(seed, steps, warmup_cosine(steps))
    return train(seed, steps, warmup_cosine(steps, peak=8 * PEAK_LR, warmup=1))


SCENARIO = Scenario(
    name="no-warmup",
    title="High learning rate without warm-up",
    family="damaged",
    cause="no_warmup",
    summary="A cosine schedule starts at its peak, eight times too high: the first steps do the "
    "damage and the rest of the schedule cannot mend it.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.restart_and_scale(0.5),
        moves.restart_and_scale(0.25),
        moves.restart_and_scale(0.125),
    ),
    acceptable=("rollback+scale_lr",),
    harmful=("raise_lr",),
    delay=60,
)
