"""One shard of four whose labels are wrong."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Batch, Knob, Scenario, Setup
from autopilot_evals.scenarios.digits import PEAK_LR, DigitBatches, digits, train_digits
from autopilot_evals.scenarios.text import generator
from autopilot_evals.scenarios.training import room, warmup_cosine

SOURCES = ("shard-0", "shard-1", "shard-2", "shard-3")
NOISY = "shard-2"


class Shards(Sequence[Batch]):
    """Shards in turn, one of them mislabelled; what is excluded leaves its turn to the others."""

    def __init__(self, seed: int, length: int, *, noisy: str | None) -> None:
        members = torch.arange(len(digits().labels))
        self.shards = {
            source: DigitBatches(seed + i, length, among=members[i :: len(SOURCES)], source=source)
            for i, source in enumerate(SOURCES)
        }
        self.seed, self.noisy, self.excluded = seed, noisy, ""

    def __len__(self) -> int:
        return len(self.shards[SOURCES[0]])

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        turn = [source for source in SOURCES if source != self.excluded]
        source = turn[cursor % len(turn)]
        batch = self.shards[source][cursor]
        if source != self.noisy:
            return batch
        rng = generator(self.seed, "labels", cursor)
        wrong = torch.randint(10, batch.targets.shape, generator=rng)
        return Batch(batch.inputs, wrong, batch.source)

    def get(self) -> str:
        return self.excluded

    def set(self, source: str) -> None:
        self.excluded = source


def build(seed: int, arm: Arm, steps: int) -> Setup:
    shards = Shards(seed, room(steps), noisy=NOISY if arm == "sick" else None)
    setup = train_digits(seed, steps, warmup_cosine(steps, peak=PEAK_LR), batches=shards)
    knob = Knob("exclude_source", shards.get, shards.set, choices=("", *SOURCES))
    return replace(setup, knobs=(knob,))


SCENARIO = Scenario(
    name="noisy-shard",
    title="A shard with wrong labels",
    family="misdriven",
    cause="bad_shard",
    summary="Every fourth batch comes from a shard whose labels are drawn by lot. The loss of each "
    "source tells them apart; leaving the shard out helps, leaving out another one harms.",
    build=build,
    moves=(*moves.REFLEXES, *(moves.knob("exclude_source", source) for source in SOURCES)),
    acceptable=("set_knob", "exclude_data"),
    harmful=("scale_lr", "rollback"),
    delay=200,
    steps=800,
    split="held_out",
)
