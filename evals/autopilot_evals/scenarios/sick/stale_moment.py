"""A change of data that Adam's second moment is not ready for."""

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.data import Shift, Spoilt, repeated
from autopilot_evals.scenarios.text import TextBatches
from autopilot_evals.scenarios.training import PEAK_LR, draw, room, train, warmup_cosine


def build(seed: int, arm: Arm, steps: int) -> Setup:
    at = int(steps * draw(seed, "stale-moment", 0.35, 0.5))
    full = TextBatches(seed, room(steps), source="text")
    easy = Spoilt(
        TextBatches(seed, room(steps), source="drill"), range(room(steps)), repeated(seed)
    )
    betas = (0.9, 0.9995) if arm == "sick" else (0.9, 0.95)
    return train(
        seed,
        steps,
        warmup_cosine(steps, peak=2 * PEAK_LR),
        betas=betas,
        batches=Shift(easy, full, at),
        fault_step=at,
    )


SCENARIO = Scenario(
    name="stale-second-moment",
    title="Gradients that outgrew Adam's second moment",
    family="misdriven",
    cause="loss_spike",
    summary="After easy data the second moment is tiny, and with a long memory it stays so when "
    "the real text begins: updates are far too large until it has caught up. Resetting the "
    "optimizer with a short ramp is better than waiting, or going back to before the change.",
    build=build,
    moves=(
        *moves.REFLEXES,
        moves.CLIP,
        moves.RESET,
        moves.back_and("reset", *moves.RESET.interventions),
    ),
    acceptable=("reset_optimizer_state", "reset_optimizer_state+rollback"),
    harmful=("set_grad_clip",),
    delay=6,
    split="held_out",
)
