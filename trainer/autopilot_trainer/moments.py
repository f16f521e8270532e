"""An optimizer's running moments, made afresh in place."""

from collections.abc import Collection
from typing import Any, Literal

import torch

from autopilot_trainer.optimizers import Trainer

Moments = Literal["first", "second", "all"]

_FIRST = ("exp_avg", "momentum_buffer")
_SECOND = (
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_inf",
    "square_avg",
    "grad_avg",  # of centred RMSprop: a variance, with square_avg
    "acc_delta",
    "row_var",
    "col_var",
    "variance",
    "sum",
)
_NAMES = {"first": _FIRST, "second": _SECOND, "all": _FIRST + _SECOND}


def begin_afresh(
    optimizer: Trainer,
    moments: Moments,
    parameters: Collection[torch.Tensor] | None = None,
) -> float:
    """Set moments to what they begin with, and the step counters that correct their bias.

    A counter belongs to both moments. Where the second goes and the first stays, the first is
    scaled so that its corrected value is the same under the new counter: left as it is, it would
    count 1 / (1 - beta1) times at the next update.

    Args:
        optimizer: One of torch's, or one that names its state as they do.
        moments: Which.
        parameters: Whose; None means all.

    Returns:
        What was there: the sum of absolute values.
    """
    wanted = None if parameters is None else {id(p) for p in parameters}
    total = 0.0
    with torch.no_grad():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if wanted is None or id(parameter) in wanted:
                    total += _begin(optimizer.state.get(parameter, {}), group, moments)
    return total


def _begin(state: dict[str, Any], group: dict[str, Any], moments: Moments) -> float:
    total = 0.0
    step = state.get("step")
    counts = "betas" in group or "beta2_decay" in group
    if counts and isinstance(step, torch.Tensor) and moments == "second" and "exp_avg" in state:
        kept = 1 - float(group["betas"][0])
        state["exp_avg"].mul_(kept / max(1 - (1 - kept) ** float(step), kept))
    for name in _NAMES[moments]:
        held = state.get(name)
        if isinstance(held, torch.Tensor):
            total += float(held.abs().sum())
            held.fill_(group.get("initial_accumulator_value", 0.0) if name == "sum" else 0.0)
    if counts and isinstance(step, torch.Tensor) and moments != "first":
        step.zero_()
        if "mu_product" in state:
            state["mu_product"].fill_(1.0)
    return total
