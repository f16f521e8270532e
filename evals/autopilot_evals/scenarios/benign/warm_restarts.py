"""A schedule that starts over again and again, with a short warm-up each time.

After SGDR, arXiv 1608.03983; several optimizers' reference schedules are cyclic like this.
"""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Schedule, Setup
from autopilot_evals.scenarios.training import PEAK_LR, choose, sized, train, warmup_cosine

LOW = 0.1


def cyclic(period: int) -> Schedule:
    """Return the first cycle of a warm-up and a cosine over and over, without its long tail."""
    cycle = warmup_cosine(period, peak=PEAK_LR, warmup=20)
    return lambda step: max(cycle(step % period), LOW * PEAK_LR)


def build(seed: int, arm: Arm, steps: int) -> Setup:
    period = choose(seed, "period", (120, 150, 190))
    plan = cyclic(period)
    return train(seed, steps, plan, batches=sized(seed, steps), lr_plan=plan)


SCENARIO = Scenario(
    name="warm-restarts",
    title="Planned restarts of the learning rate",
    family="benign",
    cause=None,
    summary="Every 120 to 190 steps the rate leaps back to its peak, as declared. The loss rises a "
    "little each time and falls below where it was.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=200,
    split="held_out",
)
