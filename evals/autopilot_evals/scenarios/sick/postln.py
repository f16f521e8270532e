"""A deep post-norm transformer that collapses to the frequencies of its symbols."""

import torch

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.gpt import GPT
from autopilot_evals.scenarios.text import CONTEXT, corpus
from autopilot_evals.scenarios.training import sized, train, warmup_cosine

HOT, TUNED = 0.03, 0.004


def build(seed: int, arm: Arm, steps: int) -> Setup:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(len(corpus().symbols), CONTEXT, layers=4, post_norm=True)
    schedule = warmup_cosine(steps, peak=HOT if arm == "sick" else TUNED)
    return train(seed, steps, schedule, model=model, batches=sized(seed, steps))


SCENARIO = Scenario(
    name="post-norm-collapse",
    title="A post-norm transformer on its plateau",
    family="damaged",
    cause="lr_too_high",
    summary="The loss falls to the entropy of single symbols and stands there: no gradient comes "
    "through the norms any more. Nothing in place changes that; a start at a lower rate does.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.RESET,
        moves.restart_and_scale(0.3),
        moves.restart_and_scale(0.1),
    ),
    acceptable=("rollback+scale_lr",),
    harmful=("raise_lr",),
    delay=100,
    split="held_out",
)
