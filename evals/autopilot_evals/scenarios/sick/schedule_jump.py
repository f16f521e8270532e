"""A scheduler that leaves the declared plan upwards.

The rate in force differs from the plan at the very step of the fault; the loss jumps two to three
steps later.
"""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import broken_from, draw, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    plan = warmup_cosine(steps)
    at = int(steps * draw(seed, "schedule-jump", 0.4, 0.6))
    schedule = plan if arm == "reference" else broken_from(plan, at, 30.0)
    return train(seed, steps, schedule, lr_plan=plan, fault_step=at)


SCENARIO = Scenario(
    name="schedule-jump",
    title="Scheduler multiplies the learning rate by 30",
    family="damaged",
    cause="schedule_fault",
    summary="From one step on the rate is thirty times the declared plan. A few steps of it ruin "
    "the weights: following the plan again is not enough without going back.",
    build=build,
    moves=(*moves.REFLEXES, moves.FOLLOW_PLAN, moves.BACK_AND_FOLLOW_PLAN),
    acceptable=("rollback+set_lr",),
    harmful=("scale_lr", "raise_lr"),
    delay=15,
)
