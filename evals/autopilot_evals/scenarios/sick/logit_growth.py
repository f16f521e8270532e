"""A peak learning rate so high that the attention saturates once the warm-up is over."""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.attention import with_attention_logits
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import PEAK_LR, sized, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    peak = PEAK_LR if arm == "reference" else 10 * PEAK_LR
    setup = train(seed, steps, warmup_cosine(steps, peak=peak), batches=sized(seed, steps))
    return with_attention_logits(setup)


SCENARIO = Scenario(
    name="logit-growth",
    title="Attention logits that grow during warm-up",
    family="damaged",
    cause="lr_too_high",
    summary="The rate climbs to ten times what the model bears. Its attention becomes one-hot on "
    "the way and stays so, whatever the rate does later.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.scale(0.2),
        moves.restart_and_scale(0.5),
        moves.restart_and_scale(0.2),
        moves.restart_and_scale(0.1),
    ),
    acceptable=("rollback+scale_lr",),
    harmful=("raise_lr",),
    delay=100,
)
