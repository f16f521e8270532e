"""Images of digits that scikit-learn carries, and a small network of rectified units for them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from autopilot_evals.scenarios.base import Batch, Schedule, Setup
from autopilot_evals.scenarios.text import generator
from autopilot_evals.scenarios.training import choose, room, train

HELD_OUT = 500
PEAK_LR = 0.01
WIDTHS = (48, 64, 96)


@dataclass(frozen=True)
class Digits:
    """Images as rows of 64 values in 0..1, and their labels."""

    images: Tensor
    labels: Tensor
    held_out: Batch


@cache
def digits() -> Digits:
    """Read and split the images: 1,297 to train on, 500 held out."""
    # Loading scikit-learn takes as long as loading torch, and most scenarios train on text.
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.target), generator=generator(0, "digits"))
    images = torch.tensor(found.data, dtype=torch.float32)[order] / 16.0
    labels = torch.tensor(found.target)[order]
    unseen = Batch(images[:HELD_OUT], labels[:HELD_OUT], "held-out")
    return Digits(images[HELD_OUT:], labels[HELD_OUT:], unseen)


class DigitBatches(Sequence[Batch]):
    """Random images, each batch a pure function of (seed, cursor).

    Args:
        among: Which images may be drawn; None allows all.
    """

    def __init__(
        self,
        seed: int,
        length: int,
        *,
        size: int = 32,
        among: Tensor | None = None,
        source: str = "digits",
    ) -> None:
        self.seed, self.length, self.size, self.source = seed, length, size, source
        self.among = torch.arange(len(digits().labels)) if among is None else among

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        if not 0 <= cursor < self.length:
            raise IndexError(cursor)
        rng = generator(self.seed, "digits", cursor)
        drawn = self.among[torch.randint(len(self.among), (self.size,), generator=rng)]
        return Batch(digits().images[drawn], digits().labels[drawn], self.source)


class MLP(nn.Module):
    """Two hidden layers of rectified units: (batch, 64) values -> (batch, 10) logits.

    Attributes:
        dead: Share of hidden units that were zero for every image of the last batch.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 10)
        self.dead = 0.0

    def forward(self, images: Tensor) -> Tensor:
        one = self.first(images).relu()
        two = self.second(one).relu()
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                silent = [(hidden.amax(0) <= 0).float().mean() for hidden in (one, two)]
                self.dead = float(sum(silent)) / 2
        out: Tensor = self.head(two)
        return out


def train_digits(
    seed: int,
    steps: int,
    schedule: Schedule,
    *,
    batches: Sequence[Batch] | None = None,
    fault_step: int | None = None,
) -> Setup:
    """Put a training on digits together; it reports the share of dead units."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MLP(choose(seed, "width", WIDTHS))
    setup = train(
        seed,
        steps,
        schedule,
        model=model,
        batches=batches or DigitBatches(seed, room(steps)),
        held_out=digits().held_out,
        fault_step=fault_step,
    )
    return replace(setup, worst_loss=math.log(10), metrics=lambda: {"dead_fraction": model.dead})
