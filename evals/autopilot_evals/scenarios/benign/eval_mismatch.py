"""An evaluation that breaks while the training is fine."""

from dataclasses import replace

import torch

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Batch, Scenario, Setup
from autopilot_evals.scenarios.text import corpus
from autopilot_evals.scenarios.training import cross_entropy, draw, sized, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    setup = train(seed, steps, warmup_cosine(steps), batches=sized(seed, steps))
    at = steps * draw(seed, "eval-mismatch", 0.3, 0.6)
    inputs, targets, source = corpus().held_out
    # A tokenizer of another version: the numbers of all symbols are off by one.
    shifted = Batch((inputs + 1) % len(corpus().symbols), targets, source)
    now = 0

    def before_step(step: int) -> None:
        nonlocal now
        now = step

    @torch.no_grad()
    def evaluate() -> float:
        return float(cross_entropy(setup.model, shifted)) if now >= at else setup.evaluate()

    return replace(setup, before_step=before_step, evaluate=evaluate, final=setup.evaluate)


SCENARIO = Scenario(
    name="eval-mismatch",
    title="An evaluation that breaks",
    family="benign",
    cause=None,
    summary="From one evaluation on, the held-out text is encoded wrongly and its loss is far "
    "above where it was. The training is as it should be: the evaluation is to be mended.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=330,
    split="held_out",
)
