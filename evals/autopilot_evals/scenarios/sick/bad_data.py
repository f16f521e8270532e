"""A burst of bad batches.

It sets off the loss alarm (median of five z above 3) two steps after its onset, and that of the
gradient norm with it.
"""

from collections.abc import Sequence

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Batch, Scenario, Setup
from autopilot_evals.scenarios.data import Spoilt, repeated
from autopilot_evals.scenarios.text import TextBatches
from autopilot_evals.scenarios.training import draw, room, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    start = int(steps * draw(seed, "bad-data", 0.5, 0.65))
    span = range(start, start + int(draw(seed, "bad-data length", 40, 80)))
    batches: Sequence[Batch] = TextBatches(seed, room(steps))
    if arm == "sick":
        batches = Spoilt(batches, span, repeated(seed))
    return train(seed, steps, warmup_cosine(steps), batches=batches, fault_step=start)


SCENARIO = Scenario(
    name="bad-data",
    title="A burst of repeated-token batches",
    family="damaged",
    cause="loss_spike",
    summary="For 40 to 80 batches every sequence is one symbol, over and over. Going back without "
    "leaving them out runs into them again.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.CLIP,
        moves.SKIP,
        moves.back_and_skip(60),
        moves.back_and_skip(120),
    ),
    acceptable=("rollback+skip_batches", "skip_batches"),
    harmful=("scale_lr", "raise_lr"),
    delay=10,
)
