"""scale_lr, set_lr, rewarm_lr."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

from autopilot.schema import Change, Intervention, RewarmLR, ScaleLR, SetLR
from autopilot_trainer.actions.applied import Applied, Check
from autopilot_trainer.learning_rate import LearningRate
from autopilot_trainer.training import Training

_LEAST, _MOST = 0.001, 1000.0
"""Bounds of one factor; the inverse of one within them lies within them too."""


def scale_lr(intervention: ScaleLR, training: Training) -> Applied:
    """Multiply what is in force."""
    before = _values(training)
    training.hooks.learning_rate.scale(intervention.factor, intervention.groups)
    inverse = ScaleLR(factor=1 / intervention.factor, groups=intervention.groups)
    return _applied(training, before, intervention.groups, (inverse,))


def set_lr(intervention: SetLR, training: Training) -> Applied:
    """Fix the value, or follow the schedule or the plan."""
    lr = training.hooks.learning_rate
    before, inverse = _values(training), _inverse_of_set(intervention, training)
    if isinstance(intervention.value, str):
        lr.follow(intervention.value, intervention.groups)
    else:
        lr.set_value(intervention.value, intervention.groups)
    return _applied(training, before, intervention.groups, inverse)


def rewarm_lr(intervention: RewarmLR, training: Training) -> Applied:
    """Ramp up from near zero."""
    before = _values(training)
    training.hooks.learning_rate.rewarm(intervention.steps)
    return _applied(training, before, None, (RewarmLR(steps=0),))


def _values(training: Training) -> list[float]:
    return training.hooks.learning_rate.values(training.step)


def _item(lr: LearningRate, which: Literal["expected", "in_force"], group: int) -> float:
    found: list[float] = getattr(lr, which)
    return found[group]


def _inverse_of_set(intervention: SetLR, training: Training) -> tuple[Intervention, ...]:
    """Back to what each chosen group did before."""
    lr = training.hooks.learning_rate
    alike: dict[tuple[Any, float], list[int]] = {}
    chosen = lr.chosen(intervention.groups)
    for group in chosen:
        control = lr.controls[group]
        value: Any = control.follow
        if control.override is not None:
            first = lr.scheduled()
            ratio = lr.scheduled_of(group) / first if first > 0 else lr.ratio(group)
            value = control.override / ratio if ratio > 0 else control.override
            value = next((v for v, _ in alike if _close(v, value)), value)
        alike.setdefault((value, control.scale), []).append(group)
    inverse: list[Intervention] = []
    for (value, scale), found in alike.items():
        groups = intervention.groups if len(alike) == 1 else tuple(found)
        inverse.append(SetLR(value=value, groups=groups))
        inverse += [ScaleLR(factor=factor, groups=groups) for factor in _factors(scale)]
    return tuple(inverse)


def _close(one: Any, other: float) -> bool:
    return isinstance(one, float) and math.isclose(one, other, rel_tol=1e-12)


def _factors(scale: float) -> list[float]:
    """A scale as factors that one intervention each may have."""
    factors = []
    while not _LEAST <= scale <= _MOST:
        factors.append(_MOST if scale > 1 else _LEAST)
        scale /= factors[-1]
    return factors if scale == 1.0 else [*factors, scale]


def _applied(
    training: Training,
    before: list[float],
    groups: Iterable[int] | None,
    inverse: tuple[Intervention, ...],
) -> Applied:
    lr = training.hooks.learning_rate
    after = _values(training)
    several = len(after) > 1
    chosen = lr.chosen(groups)
    names = {group: f"lr[{group}]" if several else "lr" for group in chosen}
    return Applied(
        changes=tuple(Change(field=names[g], old=before[g], new=after[g]) for g in chosen),
        checks=tuple(
            Check(
                field=names[g],
                expected=partial(_item, lr, "expected", g),
                read=partial(_item, lr, "in_force", g),
                after_update=True,
            )
            for g in chosen
        ),
        inverse=inverse,
    )
