"""Schedulers that leave the plan of the learning rate which the user declared.

The rate in force differs from the plan at the very step of the fault; the loss shows a jump two
to three steps later, and a stuck rate not at all.
"""

from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import Schedule, draw, train, warmup_cosine


def broken_from(plan: Schedule, step: int, factor: float) -> Schedule:
    """Follow the plan up to the step, and a multiple of it from there on."""
    return lambda s: plan(s) * (factor if s >= step else 1.0)


def jump(seed: int, arm: Arm, steps: int) -> Setup:
    plan = warmup_cosine(steps)
    at = int(steps * draw(seed, "schedule-jump", 0.4, 0.6))
    schedule = plan if arm == "reference" else broken_from(plan, at, 30.0)
    return train(seed, steps, schedule, lr_plan=plan, fault_step=at)


def stuck(seed: int, arm: Arm, steps: int) -> Setup:
    plan = warmup_cosine(steps)
    at = int(steps * draw(seed, "schedule-stuck", 0.2, 0.35))
    schedule = plan if arm == "reference" else broken_from(plan, at, 0.002)
    return train(seed, steps, schedule, lr_plan=plan, fault_step=at)


SCHEDULE_JUMP = Scenario(
    name="schedule-jump",
    title="Scheduler multiplies the learning rate by 30",
    family="damaged",
    cause="schedule_fault",
    summary="From one step on the rate is thirty times the declared plan. A few steps of it ruin "
    "the weights: following the plan again is not enough without going back.",
    build=jump,
)
SCHEDULE_STUCK = Scenario(
    name="schedule-stuck",
    title="Scheduler drops the learning rate to nearly zero",
    family="misdriven",
    cause="schedule_fault",
    summary="From one step on the rate is a 500th of the declared plan and the loss stands still. "
    "Following the plan again, in place, is all it takes.",
    build=stuck,
)
