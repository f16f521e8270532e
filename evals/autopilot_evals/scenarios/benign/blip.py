"""Two spoilt batches, which set off the single-point rule and no alarm."""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.data import Spoilt, garbage
from autopilot_evals.scenarios.text import TextBatches
from autopilot_evals.scenarios.training import draw, room, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    start = int(steps * draw(seed, "benign-blip", 0.3, 0.7))
    batches = Spoilt(TextBatches(seed, room(steps)), range(start, start + 2), garbage(seed))
    return train(seed, steps, warmup_cosine(steps), batches=batches)


SCENARIO = Scenario(
    name="benign-blip",
    title="Two spoilt batches",
    family="benign",
    cause=None,
    summary="Half of two batches is noise. The loss jumps for two steps and recovers by itself; "
    "every action costs more than the blip.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=250,
)
