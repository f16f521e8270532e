"""Far too little data: the training loss falls, the held-out loss turns and rises."""

from autopilot.schema import SetOptimizer
from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.text import TextBatches, corpus
from autopilot_evals.scenarios.training import draw, room, train, warmup_cosine

SYMBOLS = 3000


def build(seed: int, arm: Arm, steps: int) -> Setup:
    tokens = corpus().train
    if arm == "sick":
        start = int(draw(seed, "overfit", 0, len(tokens) - SYMBOLS))
        tokens = tokens[start : start + SYMBOLS]
    batches = TextBatches(seed, room(steps), tokens=tokens)
    return train(seed, steps, warmup_cosine(steps), batches=batches, fault_step=80)


SCENARIO = Scenario(
    name="overfit",
    title="3,000 characters to learn from",
    family="misdriven",
    cause="overfit",
    summary="The run learns its few pages by heart. The best it ever was lies behind it: stop at "
    "an earlier state, or hold the weights back by decay.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.STOP,
        moves.BACK_AND_STOP,
        moves.optimizer("weight decay 3", SetOptimizer(name="weight_decay", value=3.0)),
    ),
    acceptable=("rollback+stop", "set_optimizer", "stop"),
    harmful=("raise_lr",),
    delay=120,
)
