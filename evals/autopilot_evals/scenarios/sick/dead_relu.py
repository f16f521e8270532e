"""A kick of the learning rate that leaves most rectified units dead."""

from dataclasses import replace

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.digits import PEAK_LR, train_digits
from autopilot_evals.scenarios.once import once
from autopilot_evals.scenarios.training import draw, warmup_cosine

KICK = 150.0


def build(seed: int, arm: Arm, steps: int) -> Setup:
    at = int(steps * draw(seed, "dead-relu", 0.2, 0.35))
    setup = train_digits(seed, steps, warmup_cosine(steps, peak=PEAK_LR), fault_step=at)

    def kick() -> None:
        for group in setup.optimizer.param_groups:
            group["lr"] *= KICK

    return setup if arm == "reference" else replace(setup, before_step=once(at, kick, lasts=4))


SCENARIO = Scenario(
    name="dead-units",
    title="A kick that kills rectified units",
    family="damaged",
    cause="dead_units",
    summary="For four steps the learning rate is 150 times too high. Most units answer to nothing "
    "afterwards, and no gradient reaches them any more: only going back helps.",
    build=build,
    moves=(*moves.REFLEXES, moves.scale(3), moves.CLIP, moves.RESET),
    acceptable=("rollback", "rollback+skip_batches", "rollback+set_lr"),
    harmful=("scale_lr",),
    delay=15,
    steps=800,
)
