"""A change of data that the training meant to make.

The loss rises at once and by much; the gradients do not, and the held-out loss goes on falling.
"""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.data import MostlyPlain, Shift
from autopilot_evals.scenarios.text import TextBatches
from autopilot_evals.scenarios.training import draw, room, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    at = int(steps * draw(seed, "domain-shift", 0.3, 0.5))
    full = TextBatches(seed, room(steps), source="full")
    batches = Shift(MostlyPlain(seed, room(steps)), full, at)
    return train(seed, steps, warmup_cosine(steps), batches=batches)


SCENARIO = Scenario(
    name="domain-shift",
    title="A planned change of data",
    family="benign",
    cause=None,
    summary="Mostly plain text, then the full text. The loss rises with the change of source, "
    "while the held-out loss goes on falling.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=270,
)
