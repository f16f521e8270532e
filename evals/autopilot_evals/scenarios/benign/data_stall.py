"""Data that comes late: steps take longer, and nothing else changes."""

import time
from collections.abc import Sequence

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Batch, Scenario, Setup
from autopilot_evals.scenarios.training import draw, sized, train, warmup_cosine

WAIT = 0.012
STEPS = 150


class Slow(Sequence[Batch]):
    """Batches of which a stretch is slow to come, by :data:`WAIT` seconds each."""

    def __init__(self, batches: Sequence[Batch], span: range) -> None:
        self.batches, self.span = batches, span

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        if cursor in self.span:
            time.sleep(WAIT)
        return self.batches[cursor]


def build(seed: int, arm: Arm, steps: int) -> Setup:
    at = int(steps * draw(seed, "data-stall", 0.3, 0.5))
    batches = Slow(sized(seed, steps), range(at, at + STEPS))
    return train(seed, steps, warmup_cosine(steps), batches=batches)


SCENARIO = Scenario(
    name="data-stall",
    title="Data that comes late",
    family="benign",
    cause="stall",
    summary="For 150 steps the loader is three times slower than the training. It costs time and "
    "no quality: the optimizer has nothing to do with it.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=280,
)
