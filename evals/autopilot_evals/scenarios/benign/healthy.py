"""A training with nothing wrong."""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.attention import with_attention_logits
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    return with_attention_logits(train(seed, steps, warmup_cosine(steps)))


SCENARIO = Scenario(
    name="healthy",
    title="Nothing wrong",
    family="benign",
    cause=None,
    summary="Warm-up and a cosine schedule at tuned values. There is nothing to do.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=180,
)
