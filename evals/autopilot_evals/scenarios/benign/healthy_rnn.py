"""A recurrent network under plain gradient descent that its loop clips, as it should."""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.rnn import clipped, rising, train_rnn


def build(seed: int, arm: Arm, steps: int) -> Setup:
    return clipped(train_rnn(seed, steps, rising))


SCENARIO = Scenario(
    name="healthy-rnn",
    title="A recurrent network, clipped by its loop",
    family="benign",
    cause=None,
    summary="Gradients are large and clipped at every other step. The loop deals with them.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=200,
    split="held_out",
)
