"""A sampler that gives the same few batches over and over.

The training loss falls faster than it should, the held-out loss rises; digests of batches repeat.
"""

from collections.abc import Sequence
from dataclasses import replace

from autopilot.schema import SetKnob
from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Batch, Knob, Scenario, Setup
from autopilot_evals.scenarios.once import once
from autopilot_evals.scenarios.training import choose, draw, sized, train, warmup_cosine

_SHUFFLE = SetKnob(name="shuffle", value=1.0)


class Sampler(Sequence[Batch]):
    """Batches in order while ``shuffle`` is 1, else the first few of them in turn."""

    def __init__(self, batches: Sequence[Batch], few: int) -> None:
        self.batches, self.few, self.shuffle = batches, few, 1.0

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        return self.batches[cursor if self.shuffle else cursor % self.few]

    def get(self) -> float:
        return self.shuffle

    def set(self, shuffle: float) -> None:
        self.shuffle = shuffle


def build(seed: int, arm: Arm, steps: int) -> Setup:
    at = int(steps * draw(seed, "data-repeat", 0.25, 0.4))
    sampler = Sampler(sized(seed, steps), choose(seed, "few", (8, 12, 14)))

    setup = train(seed, steps, warmup_cosine(steps), batches=sampler, fault_step=at)
    knob = Knob("shuffle", sampler.get, sampler.set, 0.0, 1.0)
    setup = replace(setup, knobs=(knob,))
    if arm == "reference":
        return setup
    return replace(setup, before_step=once(at, lambda: sampler.set(0.0)))


SCENARIO = Scenario(
    name="data-repeat",
    title="A sampler stuck on a few batches",
    family="misdriven",
    cause="data_repeat",
    summary="From one step on the same eight to fourteen batches come again and again. Mending the "
    "sampler is all it takes; a rate that is cut only learns them by heart more slowly.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.RESET,
        moves.knob("shuffle", 1.0),
        moves.back_and("shuffle = 1", _SHUFFLE),
    ),
    acceptable=("set_knob", "rollback+set_knob"),
    harmful=("raise_lr",),
    delay=60,
    split="held_out",
)
