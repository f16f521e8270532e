"""A scheduler that leaves the declared plan downwards.

The rate in force differs from the plan at the very step of the fault; the loss does not show it.
"""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import broken_from, draw, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    plan = warmup_cosine(steps)
    at = int(steps * draw(seed, "schedule-stuck", 0.2, 0.35))
    schedule = plan if arm == "reference" else broken_from(plan, at, 0.002)
    return train(seed, steps, schedule, lr_plan=plan, fault_step=at)


SCENARIO = Scenario(
    name="schedule-stuck",
    title="Scheduler drops the learning rate to nearly zero",
    family="misdriven",
    cause="schedule_fault",
    summary="From one step on the rate is a 500th of the declared plan and the loss stands still. "
    "Following the plan again, in place, is all it takes.",
    build=build,
    moves=(*moves.REFLEXES, moves.scale(10), moves.FOLLOW_PLAN, moves.BACK_AND_FOLLOW_PLAN),
    acceptable=("set_lr", "rollback+set_lr"),
    harmful=("scale_lr",),
    delay=60,
)
