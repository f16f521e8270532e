"""Inputs that are spoilt more and more and less again, on purpose: a loss that goes up and down."""

from collections.abc import Sequence

import torch

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Batch, Scenario, Setup
from autopilot_evals.scenarios.text import corpus, generator
from autopilot_evals.scenarios.training import choose, draw, sized, train, warmup_cosine


class Sawtooth(Sequence[Batch]):
    """Batches of which a growing share of the input is replaced by random symbols, again and again.

    Args:
        period: Batches from one clean batch to the next.
        most: Share at the top of a tooth.
    """

    def __init__(self, seed: int, batches: Sequence[Batch], period: int, most: float) -> None:
        self.seed, self.batches, self.period, self.most = seed, batches, period, most

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        inputs, targets, source = self.batches[cursor]
        rng = generator(self.seed, "sawtooth", cursor)
        share = self.most * (cursor % self.period) / self.period
        noise = torch.randint(len(corpus().symbols), inputs.shape, generator=rng)
        spoilt = torch.rand(inputs.shape, generator=rng) < share
        return Batch(torch.where(spoilt, noise, inputs), targets, source)


def build(seed: int, arm: Arm, steps: int) -> Setup:
    period = choose(seed, "period", (30, 50, 80))
    most = draw(seed, "sawtooth", 0.15, 0.3)
    batches = Sawtooth(seed, sized(seed, steps), period, most)
    return train(seed, steps, warmup_cosine(steps), batches=batches)


SCENARIO = Scenario(
    name="sawtooth",
    title="Augmentation in a sawtooth",
    family="benign",
    cause=None,
    summary="A growing share of the inputs is noise, then none, over and over. The loss climbs and "
    "drops with it, as planned.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=220,
)
