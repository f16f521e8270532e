"""A weight decay hundreds of times too strong.

The weights shrink, the norm of the parameters with them; the update ratio looks healthy.
"""

from autopilot.schema import SetOptimizer
from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import draw, sized, train, warmup_cosine

_RIGHT = SetOptimizer(name="weight_decay", value=0.01)


def build(seed: int, arm: Arm, steps: int) -> Setup:
    decay = 0.01 if arm == "reference" else draw(seed, "weight-decay", 3.0, 6.0)
    batches = sized(seed, steps)
    return train(seed, steps, warmup_cosine(steps), weight_decay=decay, batches=batches)


SCENARIO = Scenario(
    name="weight-decay",
    title="Weight decay hundreds of times too strong",
    family="misdriven",
    cause="decay_too_high",
    summary="The decay pulls the weights to zero as fast as the gradients build them up. Put right "
    "in place, they recover.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.optimizer("weight decay 0.01", _RIGHT),
        moves.restart_and("weight decay 0.01", _RIGHT),
    ),
    acceptable=("set_optimizer", "rollback+set_optimizer"),
    harmful=("scale_lr", "raise_lr"),
    delay=100,
    split="held_out",
)
