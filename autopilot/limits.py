"""The policy's hard limits on values: what no actor may leave, unless a person forces it.

Every denial ends with what the same check would let through: ``; allowed: scale_lr factor from
0.05 to 2``.
"""

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import NamedTuple

from autopilot.policy import LearningRateLimits, Limits
from autopilot.schema import Capabilities, Intervention, ScaleLR, SetGradClip, SetLR


class Broken(NamedTuple):
    """A limit that would be broken: the policy key, and a reason that says what is allowed."""

    rule: str
    reason: str


class _Outcome(NamedTuple):
    """What the changes of a proposal come to.

    Attributes:
        low: Least factor over the plan among the groups.
        high: Greatest.
        raised: The most that any group is raised over what is in force now.
        to_plan: Every group that is changed goes back to its plan or schedule.
    """

    low: float
    high: float
    raised: float
    to_plan: bool


def check_limits(
    limits: Limits,
    interventions: Sequence[Intervention],
    capabilities: Capabilities,
    *,
    undoing: bool = False,
) -> Broken | None:
    """The first limit that the interventions, applied in order, would break; None if they hold.

    Args:
        limits: The policy's.
        interventions: What is to be applied.
        capabilities: What is in force.
        undoing: They take back what was applied, so that how much they raise at once is no matter.
    """
    for intervention in interventions:
        if isinstance(intervention, SetGradClip) and intervention.max_norm is not None:
            low = limits.grad_clip.min
            if intervention.max_norm < low:
                return Broken(
                    "limits.grad_clip.min",
                    f"max_norm {intervention.max_norm:g} is too low; allowed: set_grad_clip "
                    f"max_norm from {_inward(low, up=True)}",
                )
    changes = [i for i in interventions if isinstance(i, ScaleLR | SetLR)]
    lr = limits.lr.model_copy(update={"max_factor": math.inf}) if undoing else limits.lr
    broken = _check_learning_rate(lr, changes, capabilities) if changes else None
    if broken is None:
        return None
    instead = _instead(lr, changes, capabilities)
    return broken._replace(reason=f"{broken.reason}; allowed: {instead}")


def _check_learning_rate(
    limits: LearningRateLimits, changes: Sequence[ScaleLR | SetLR], capabilities: Capabilities
) -> Broken | None:
    planned = _setting(capabilities, "lr_plan") or 0.0
    outcome = _outcome(changes, capabilities, planned)
    if outcome is None:
        return Broken(
            "limits.lr.total_factor",
            "the learning rate planned for this step is 0, so no factor over it can be judged",
        )
    low, high, raised, to_plan = outcome
    least, most = limits.total_factor
    tolerance = 1 + 1e-9
    if high > most * tolerance or low * tolerance < least:
        return Broken(
            "limits.lr.total_factor",
            f"this would put the learning rate at {_span(low, high)} times what is planned, "
            f"which may be {least:g} to {most:g} times in all",
        )
    if not to_plan and raised > limits.max_factor * tolerance:
        return Broken(
            "limits.lr.max_factor",
            f"this raises the learning rate {raised:.4g} times at once, which may be "
            f"{limits.max_factor:g} times",
        )
    if planned > 0 and low * planned * tolerance < limits.min and not to_plan:
        return Broken(
            "limits.lr.min",
            f"this takes the learning rate to {low * planned:.3g}, below {limits.min:g}",
        )
    return None


def _outcome(
    changes: Sequence[ScaleLR | SetLR], capabilities: Capabilities, planned: float
) -> _Outcome | None:
    """What the changes come to in order; None where no factor over the plan exists."""
    scheduled = _setting(capabilities, "lr_scheduled")
    scheduled = planned if scheduled is None else scheduled
    low, high, _ = _in_force(capabilities)
    least_before, raised, to_plan = low, 1.0, True
    for change in changes:
        factors = _factors_after(change, low, high, planned, scheduled)
        if factors is None:
            return None
        low, high = factors
        if isinstance(change, ScaleLR):
            now_raised, to_plan = raised * change.factor, False
        else:
            now_raised = high / least_before if least_before > 0 else 1.0
            to_plan = isinstance(change.value, str) and (to_plan or change.groups is None)
        raised = now_raised if change.groups is None else max(raised, now_raised)
    return _Outcome(low, high, raised, to_plan)


def _in_force(capabilities: Capabilities) -> tuple[float, float, float]:
    """Least and greatest factor over the plan among the groups, and the plan."""
    low, high = _setting(capabilities, "lr_factor_min"), _setting(capabilities, "lr_factor_max")
    planned = _setting(capabilities, "lr_plan") or 0.0
    return (1.0 if low is None else low), (1.0 if high is None else high), planned


def _setting(capabilities: Capabilities, name: str) -> float | None:
    setting = capabilities.settings.get(name)
    value = setting.value if setting else None
    return float(value) if isinstance(value, int | float) else None


def _span(low: float, high: float) -> str:
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _factors_after(
    change: ScaleLR | SetLR, low: float, high: float, planned: float, scheduled: float
) -> tuple[float, float] | None:
    """Least and greatest factor over the plan, among the groups, after a change.

    Conservative where only some groups change: the others may be anywhere in between. None where
    the plan is 0 and no factor over it exists.
    """
    if isinstance(change, ScaleLR):
        new_low, new_high = low * change.factor, high * change.factor
    elif change.value == "plan":
        new_low = new_high = 1.0
    elif change.value == "schedule":
        if planned <= 0:
            new_low = new_high = 1.0 if scheduled <= 0 else float("inf")
        else:
            new_low = new_high = scheduled / planned
    elif planned <= 0:
        return None
    else:
        new_low = new_high = float(change.value) / planned
    if change.groups is None:
        return new_low, new_high
    return min(low, new_low), max(high, new_high)


# --- what would be allowed instead ---------------------------------------------------------------

_DIGITS = 6
_FACTORS = (0.001, 1000.0)
"""What one ``scale_lr`` may say."""


def _instead(
    limits: LearningRateLimits, changes: Sequence[ScaleLR | SetLR], capabilities: Capabilities
) -> str:
    """What the check would let through in place of the changes, of the last one's kind if any."""
    last = changes[-1]
    by_value = isinstance(last, SetLR) and not isinstance(last.value, str)
    low, high = (_values if by_value else _factors)(limits, capabilities)
    if 0 < low <= high:
        kind, name = ("set_lr", "value") if by_value else ("scale_lr", "factor")
        ends = _inward(low, up=True), _inward(high, up=False)
        groups = last.groups if len(changes) == 1 else None
        if all(_passes(limits, _change(kind, end, groups), capabilities) for end in ends):
            return f"{kind} {name} from {ends[0]} to {ends[1]}"
    for way in ("plan", "schedule") if capabilities.lr_plan_declared else ("schedule",):
        if _passes(limits, _change("set_lr", way, None), capabilities):
            return f"set_lr value={way}"
    return "no change of the learning rate, short of a person's force"


def _factors(limits: LearningRateLimits, capabilities: Capabilities) -> tuple[float, float]:
    """By how much the learning rate in force may be scaled at once: least and most."""
    low, high, planned = _in_force(capabilities)
    in_force = low * (planned or 1.0)
    if in_force <= 0:
        return 0.0, 0.0
    least, most = limits.total_factor
    floor = limits.min / in_force if planned > 0 else 0.0
    return (
        max(least / low, floor, _FACTORS[0]),
        min(most / high, limits.max_factor, _FACTORS[1]),
    )


def _values(limits: LearningRateLimits, capabilities: Capabilities) -> tuple[float, float]:
    """What the learning rate may be set to: least and most."""
    low, _, planned = _in_force(capabilities)
    least, most = limits.total_factor
    return max(least * planned, limits.min), min(most, limits.max_factor * low) * planned


def _change(kind: str, said: str, groups: tuple[int, ...] | None) -> ScaleLR | SetLR:
    if kind == "scale_lr":
        return ScaleLR(factor=float(said), groups=groups)
    return SetLR.model_validate({"value": said, "groups": groups})


def _passes(
    limits: LearningRateLimits, change: ScaleLR | SetLR, capabilities: Capabilities
) -> bool:
    return _check_learning_rate(limits, [change], capabilities) is None


def _inward(bound: float, *, up: bool) -> str:
    """A bound in a few digits, on its allowed side."""
    context = Context(prec=_DIGITS, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    return f"{float(context.create_decimal(repr(bound))):g}"
