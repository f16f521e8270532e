"""A batch size that doubles twice on the way, as planned."""

from collections.abc import Sequence

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Batch, Scenario, Setup
from autopilot_evals.scenarios.text import TextBatches
from autopilot_evals.scenarios.training import draw, room, train, warmup_cosine


class Ramp(Sequence[Batch]):
    """Batches of growing size: each stage begins at its cursor."""

    def __init__(self, seed: int, length: int, stages: Sequence[tuple[int, int]]) -> None:
        self.stages = [(at, TextBatches(seed, length, size=size)) for at, size in stages]

    def __len__(self) -> int:
        return len(self.stages[0][1])

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        return next(stage for at, stage in reversed(self.stages) if cursor >= at)[cursor]


def build(seed: int, arm: Arm, steps: int) -> Setup:
    first = int(steps * draw(seed, "batch-ramp", 0.15, 0.3))
    stages = ((0, 6), (first, 12), (2 * first, 24))
    return train(seed, steps, warmup_cosine(steps), batches=Ramp(seed, room(steps), stages))


SCENARIO = Scenario(
    name="batch-ramp",
    title="A batch size that doubles twice",
    family="benign",
    cause=None,
    summary="Small, noisy batches first, larger ones later: noise, gradient norm and speed change "
    "in steps, and all of it is planned.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=200,
    split="held_out",
)
