"""Single odd batches here and there, as every large text has them."""

from collections.abc import Sequence

import torch

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Batch, Scenario, Setup
from autopilot_evals.scenarios.data import garbage
from autopilot_evals.scenarios.text import generator
from autopilot_evals.scenarios.training import sized, train, warmup_cosine

EVERY = 50


class Sprinkled(Sequence[Batch]):
    """Batches of which one in each fifty, anywhere in them, is half noise."""

    def __init__(self, seed: int, batches: Sequence[Batch]) -> None:
        self.seed, self.batches, self.spoil = seed, batches, garbage(seed)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        rng = generator(self.seed, "outliers", cursor // EVERY)
        odd = int(torch.randint(EVERY, (), generator=rng))
        batch = self.batches[cursor]
        return self.spoil(cursor, batch) if cursor % EVERY == odd else batch


def build(seed: int, arm: Arm, steps: int) -> Setup:
    batches = Sprinkled(seed, sized(seed, steps))
    return train(seed, steps, warmup_cosine(steps), batches=batches)


SCENARIO = Scenario(
    name="outliers",
    title="Single odd batches",
    family="benign",
    cause=None,
    summary="About one batch in fifty is half noise. Each makes the loss jump for one step.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=220,
)
