"""Pretrained weights at a learning rate that is small on purpose."""

from functools import cache

from torch import Tensor

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.text import TextBatches, corpus
from autopilot_evals.scenarios.training import (
    PEAK_LR,
    draw,
    room,
    sized,
    small_gpt,
    train,
    warmup_cosine,
)

PRETRAINED_STEPS = 400
SMALL = PEAK_LR / 100
SYMBOLS = 12_000


@cache
def pretrained(seed: int) -> dict[str, Tensor]:
    """Weights after a training on the whole text."""
    setup = train(
        seed,
        PRETRAINED_STEPS,
        warmup_cosine(PRETRAINED_STEPS),
        batches=sized(seed + 1000, PRETRAINED_STEPS),
    )
    for cursor in range(PRETRAINED_STEPS):
        setup.backward(setup.loss(setup.batches[cursor]))
        setup.update()
    return setup.model.state_dict()


def build(seed: int, arm: Arm, steps: int) -> Setup:
    model = small_gpt(seed)
    model.load_state_dict(pretrained(seed))
    start = int(draw(seed, "fine-tuning", 0, len(corpus().train) - SYMBOLS))
    tokens = corpus().train[start : start + SYMBOLS]
    return train(
        seed,
        steps,
        warmup_cosine(steps, peak=SMALL),
        model=model,
        batches=TextBatches(seed, room(steps), tokens=tokens, source="own text"),
    )


SCENARIO = Scenario(
    name="fine-tuning",
    title="Fine-tuning with a small learning rate",
    family="benign",
    cause=None,
    summary="A pretrained model on a little text of its own, at a hundredth of the usual rate: "
    "updates are tiny and the loss hardly moves. More would only overfit.",
    build=build,
    moves=(*moves.REFLEXES, moves.scale(4), moves.scale(25)),
    acceptable=("nothing", "ask"),
    harmful=("raise_lr", "rollback", "reset_optimizer_state"),
    delay=100,
)
