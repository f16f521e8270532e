"""Two faults at once: a scheduler that jumps, and bad batches while it does."""

from autopilot.schema import Rollback, SetLR
from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import BEFORE, Arm, Move, Scenario, Setup
from autopilot_evals.scenarios.data import Spoilt, repeated
from autopilot_evals.scenarios.training import broken_from, draw, sized, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    plan = warmup_cosine(steps)
    at = int(steps * draw(seed, "double-fault", 0.35, 0.5))
    schedule, batches = plan, sized(seed, steps)
    if arm == "sick":
        schedule = broken_from(plan, at, 20.0)
        span = range(at, at + int(draw(seed, "double-fault length", 30, 60)))
        batches = Spoilt(batches, span, repeated(seed))
    return train(seed, steps, schedule, batches=batches, lr_plan=plan, fault_step=at)


SCENARIO = Scenario(
    name="double-fault",
    title="A schedule jump during a burst of bad data",
    family="damaged",
    cause="schedule_fault",
    summary="The rate leaves its plan just where bad batches begin. Following the plan again from "
    "an earlier state runs into them; both have to be dealt with.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.FOLLOW_PLAN,
        moves.BACK_AND_FOLLOW_PLAN,
        moves.back_and_skip(80),
        Move(
            "go back, follow the plan, skip 80",
            (Rollback(checkpoint=BEFORE, skip_batches=80), SetLR(value="plan")),
        ),
    ),
    acceptable=("rollback+set_lr+skip_batches", "rollback+set_lr"),
    harmful=("scale_lr", "raise_lr"),
    delay=15,
    split="held_out",
)
