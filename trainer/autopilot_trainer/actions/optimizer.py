"""set_optimizer, set_grad_clip, reset_optimizer_state."""

import math
from functools import partial
from typing import Any

import torch

from autopilot.schema import Change, ResetOptimizerState, Rollback, SetGradClip, SetOptimizer
from autopilot_trainer.actions.applied import Applied, Check, constant
from autopilot_trainer.hyperparameters import Hyperparameters
from autopilot_trainer.moments import begin_afresh
from autopilot_trainer.training import Training, plain


def set_optimizer(intervention: SetOptimizer, training: Training) -> Applied:
    """Put one hyperparameter in force."""
    held, name = training.hooks.hyperparameters, intervention.name
    groups = training.hooks.learning_rate.chosen(intervention.groups)
    before = [held.value(name, group) for group in groups]
    inverse = _inverse_of_set(intervention, groups, held)
    held.set(name, intervention.value, intervention.groups)
    several = len(training.hooks.optimizer.param_groups) > 1
    label = {g: f"{name}[{g}]" if several else name for g in groups}
    return Applied(
        changes=tuple(
            Change(field=label[g], old=plain(old), new=plain(held.value(name, g)))
            for g, old in zip(groups, before, strict=True)
        ),
        checks=tuple(
            Check(
                field=label[g],
                expected=partial(_in_force, held, name, g),
                read=partial(_used, held, name, g),
                after_update=True,
            )
            for g in groups
        ),
        inverse=inverse,
    )


def _inverse_of_set(
    intervention: SetOptimizer, groups: list[int], held: Hyperparameters
) -> tuple[SetOptimizer, ...]:
    """Back to what each group had; groups that had the same go together."""
    alike: dict[Any, list[int]] = {}
    for group in groups:
        old = held.override(intervention.name, group)
        alike.setdefault("schedule" if old is None else plain_setting(old), []).append(group)
    return tuple(
        SetOptimizer(
            name=intervention.name,
            value=value,
            groups=intervention.groups if len(alike) == 1 else tuple(found),
        )
        for value, found in alike.items()
    )


def _in_force(held: Hyperparameters, name: str, group: int) -> object:
    """What the update must use: the override, or whatever the group's own schedule says."""
    override = held.override(name, group)
    return _used(held, name, group) if override is None else plain(override)


def _used(held: Hyperparameters, name: str, group: int) -> object:
    return plain(held.used(name, group))


def plain_setting(value: object) -> bool | float | tuple[float, float]:
    """A hyperparameter's value as an intervention carries it."""
    if isinstance(value, tuple | list):
        first, second = value
        return (float(first), float(second))
    if isinstance(value, bool):
        return value
    return float(value.item() if isinstance(value, torch.Tensor) else value)  # type: ignore[arg-type]


def set_grad_clip(intervention: SetGradClip, training: Training) -> Applied:
    """Clip in the session, whatever the loop does besides."""
    hooks, new = training.hooks, intervention.max_norm
    old, hooks.max_norm = hooks.max_norm, new
    hooks.clipped_norm = None
    checks: tuple[Check, ...] = ()
    if new is not None:
        checks = (
            Check(
                field="grad_clip",
                expected=constant(True),
                read=lambda: (
                    hooks.clipped_norm is not None
                    and hooks.clipped_norm <= (hooks.max_norm or math.inf)
                ),
                after_update=True,
            ),
        )
    return Applied(
        changes=(Change(field="grad_clip", old=old, new=new),),
        checks=checks,
        inverse=(SetGradClip(max_norm=old),),
    )


def reset_optimizer_state(intervention: ResetOptimizerState, training: Training) -> Applied:
    """Begin the moments afresh; Adam's step counter too where its second moment goes."""
    undo = training.keep_undo()
    old = begin_afresh(training.hooks.optimizer, intervention.moments)
    return Applied(
        changes=(Change(field=f"{intervention.moments} moments", old=old, new=0.0),),
        inverse=(Rollback(checkpoint=undo),),
        take_back=lambda: training.go_to(training.state_of(undo)),
        results={"undo_checkpoint": undo},
    )
