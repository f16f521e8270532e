"""A training on images with nothing wrong."""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.digits import PEAK_LR, train_digits
from autopilot_evals.scenarios.training import draw, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    peak = PEAK_LR * draw(seed, "healthy-digits", 0.15, 0.4)
    return train_digits(seed, steps, warmup_cosine(steps, peak=peak))


SCENARIO = Scenario(
    name="healthy-digits",
    title="Nothing wrong, on images",
    family="benign",
    cause=None,
    summary="A small network on digits fits them well: its loss becomes tiny and relatively noisy.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=250,
    split="held_out",
    steps=800,
)
