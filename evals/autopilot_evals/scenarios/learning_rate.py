"""Learning rates that are wrong from the first step on.

The gradient norm does not show them; the update ratio does, as the median of steps 3 to 5: 0.02
when tuned, 0.14 at 25 times the rate, 0.0013 at a 25th of it. It saturates at the high end, so
that one reading is not enough to find the rate: the first correction leads to about 0.06, the
second to the tuned value.
"""

from autopilot_evals.scenarios.base import Arm, Scenario, Setup
from autopilot_evals.scenarios.training import (
    PEAK_LR,
    TUNED_LR,
    constant,
    train,
    warmup_cosine,
)


def too_high(seed: int, arm: Arm, steps: int) -> Setup:
    lr = TUNED_LR if arm == "reference" else 25 * TUNED_LR
    return train(seed, steps, constant(lr))


def no_warmup(seed: int, arm: Arm, steps: int) -> Setup:
    if arm == "reference":
        return train(seed, steps, warmup_cosine(steps))
    return train(seed, steps, warmup_cosine(steps, peak=8 * PEAK_LR, warmup=1))


def too_low(seed: int, arm: Arm, steps: int) -> Setup:
    lr = TUNED_LR if arm == "reference" else TUNED_LR / 25
    return train(seed, steps, constant(lr))


LR_TOO_HIGH = Scenario(
    name="lr-too-high",
    title="Learning rate 25 times too high",
    family="damaged",
    cause="lr_too_high",
    summary="The attention saturates within twenty steps and the loss stays on a plateau. "
    "Lowering the rate later does not undo that; starting over with a lower one does.",
    build=too_high,
    steps=1500,
    smoke_steps=150,
)
NO_WARMUP = Scenario(
    name="no-warmup",
    title="High learning rate without warm-up",
    family="damaged",
    cause="no_warmup",
    summary="A cosine schedule starts at its peak, eight times too high: the first steps do the "
    "damage and the rest of the schedule cannot mend it.",
    build=no_warmup,
)
LR_TOO_LOW = Scenario(
    name="lr-too-low",
    title="Learning rate 25 times too low",
    family="misdriven",
    cause="lr_too_low",
    summary="The loss falls smoothly, without noise and far too slowly. The weights are sound: "
    "the rate can be raised in place.",
    build=too_low,
)
