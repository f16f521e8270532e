"""A recurrent network whose gradients nobody clips.

The gradient norm is 100 to 1000 times its median one to three steps before the first value that is
not finite.
"""

from autopilot.schema import SetGradClip
from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.rnn import clipped, rising, train_rnn


def build(seed: int, arm: Arm, steps: int) -> Setup:
    setup = train_rnn(seed, steps, rising)
    return setup if arm == "sick" else clipped(setup)


SCENARIO = Scenario(
    name="exploding-gradients",
    title="A recurrent network without clipping",
    family="damaged",
    cause="non_finite",
    summary="While the learning rate rises, the gradient norm grows a thousandfold within a few "
    "steps and then is not finite. By then the weights are lost: going back and clipping helps.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.CLIP,
        moves.restart_and_scale(0.1),
        moves.restart_and("clip at 1", SetGradClip(max_norm=1.0)),
    ),
    acceptable=("rollback+set_grad_clip", "rollback+scale_lr"),
    harmful=("raise_lr",),
    delay=80,
)
