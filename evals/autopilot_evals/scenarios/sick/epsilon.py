"""Adam's epsilon far too large.

It shows as an ``eps_share`` of 1 (healthy: 0.03); the loss does not show it.
"""

from autopilot.schema import SetOptimizer
from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import train, warmup_cosine

_RIGHT = SetOptimizer(name="eps", value=1e-8)


def build(seed: int, arm: Arm, steps: int) -> Setup:
    return train(seed, steps, warmup_cosine(steps), eps=1e-8 if arm == "reference" else 0.1)


SCENARIO = Scenario(
    name="epsilon-too-large",
    title="Adam's epsilon at 0.1",
    family="misdriven",
    cause="dead_update",
    summary="Epsilon exceeds the root of the second moment of nearly all parameters, which makes "
    "Adam a slow gradient descent at a learning rate that is otherwise right.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.scale(10),
        moves.optimizer("eps 1e-8", _RIGHT),
        moves.optimizer("eps 1e-8, ramp of 60", _RIGHT, rewarm=60),
        moves.restart_and("eps 1e-8", _RIGHT),
    ),
    acceptable=("set_optimizer", "rollback+set_optimizer"),
    harmful=("scale_lr",),
    delay=60,
)
