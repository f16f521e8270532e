"""Small real trainings with one known fault each, and healthy ones, to try a pilot on."""

from autopilot_evals.scenarios.base import Arm, Batch, Knob, Scenario, Setup
from autopilot_evals.scenarios.data import BAD_DATA, BENIGN_BLIP, DOMAIN_SHIFT, HEALTHY
from autopilot_evals.scenarios.learning_rate import LR_TOO_HIGH, LR_TOO_LOW, NO_WARMUP
from autopilot_evals.scenarios.numerics import EPSILON, EXPLODING, LOSS_SCALE
from autopilot_evals.scenarios.schedule import SCHEDULE_JUMP, SCHEDULE_STUCK

DEFAULT = LR_TOO_HIGH
ALL = (
    LR_TOO_HIGH,
    NO_WARMUP,
    BAD_DATA,
    EXPLODING,
    LR_TOO_LOW,
    SCHEDULE_JUMP,
    SCHEDULE_STUCK,
    LOSS_SCALE,
    EPSILON,
    HEALTHY,
    BENIGN_BLIP,
    DOMAIN_SHIFT,
)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in ALL}

__all__ = ["DEFAULT", "SCENARIOS", "Arm", "Batch", "Knob", "Scenario", "Setup"]
