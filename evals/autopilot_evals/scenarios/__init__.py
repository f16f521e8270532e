"""Small real trainings with one known fault each, and healthy ones, to try a pilot on.

Each is a file of :mod:`~autopilot_evals.scenarios.sick` or
:mod:`~autopilot_evals.scenarios.benign`: a model, data, a fault, what it should be called, and what
helps and harms.
"""

from autopilot_evals.scenarios.base import Arm, Batch, Knob, Move, Scenario, Setup
from autopilot_evals.scenarios.benign import (
    batch_ramp,
    blip,
    curriculum,
    data_stall,
    domain_shift,
    eval_mismatch,
    fine_tuning,
    healthy,
    healthy_digits,
    healthy_rnn,
    outliers,
    sawtooth,
    warm_restarts,
)
from autopilot_evals.scenarios.sick import (
    bad_data,
    bit_flip,
    data_repeat,
    dead_relu,
    double_fault,
    epsilon,
    exploding,
    logit_growth,
    loss_scale,
    lr_too_high,
    lr_too_low,
    no_warmup,
    noisy_shard,
    overfit,
    postln,
    schedule_jump,
    schedule_stuck,
    stale_moment,
    underflow,
    weight_decay,
)

DEFAULT = lr_too_high.SCENARIO
SICK = (
    lr_too_high,
    no_warmup,
    bad_data,
    exploding,
    lr_too_low,
    schedule_jump,
    schedule_stuck,
    loss_scale,
    epsilon,
    logit_growth,
    postln,
    double_fault,
    bit_flip,
    dead_relu,
    stale_moment,
    data_repeat,
    noisy_shard,
    weight_decay,
    underflow,
    overfit,
)
BENIGN = (
    healthy,
    healthy_digits,
    healthy_rnn,
    blip,
    outliers,
    domain_shift,
    curriculum,
    sawtooth,
    batch_ramp,
    warm_restarts,
    fine_tuning,
    eval_mismatch,
    data_stall,
)
ALL = tuple(module.SCENARIO for module in (*SICK, *BENIGN))
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in ALL}

__all__ = ["ALL", "DEFAULT", "SCENARIOS", "Arm", "Batch", "Knob", "Move", "Scenario", "Setup"]
