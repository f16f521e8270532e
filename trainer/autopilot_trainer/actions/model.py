"""set_module, reset_module, freeze, unfreeze, set_batch."""

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from autopilot.errors import Refused
from autopilot.schema import (
    Change,
    Freeze,
    ResetModule,
    Rollback,
    SetBatch,
    SetModule,
    Unfreeze,
)
from autopilot_trainer.actions.applied import Applied, Check, constant
from autopilot_trainer.modules import drawing
from autopilot_trainer.moments import begin_afresh
from autopilot_trainer.training import Training


def set_module(intervention: SetModule, training: Training) -> Applied:
    """Set a number that one module computes with."""
    modules, module, name = training.modules, intervention.module, intervention.name
    old = modules.value(module, name)
    modules.set(module, name, intervention.value)
    field = f"{module}.{name}"
    return Applied(
        changes=(Change(field=field, old=old, new=modules.value(module, name)),),
        checks=(Check(field, constant(intervention.value), partial(modules.value, module, name)),),
        inverse=(SetModule(module=module, name=name, value=old),),
    )


def reset_module(intervention: ResetModule, training: Training) -> Applied:
    """Draw the parameters anew, the parts' before the whole's, and zero their moments.

    Raises:
        Refused: Drawing them replaced parameters that the optimizer trains; nothing is changed.
    """
    name, modules = intervention.module, training.modules
    module, trained = modules[name], _identities(training, name)
    undo = training.keep_undo()
    back = partial(_go_back, training, undo)
    old = norm(module.parameters())
    try:
        _draw(module)
        _check_kept(name, trained, _identities(training, name))
        moments = begin_afresh(training.hooks.optimizer, "all", modules.trained(name))
    except Exception:
        back()
        raise
    return Applied(
        changes=(
            Change(field=f"norm of {name}", old=old, new=norm(module.parameters())),
            Change(field=f"moments of {name}", old=moments, new=0.0),
        ),
        checks=(
            Check(
                f"{name} is what the optimizer trains",
                constant(True),
                lambda: _identities(training, name) == trained,
            ),
        ),
        inverse=(Rollback(checkpoint=undo),),
        take_back=back,
        results={
            "undo_checkpoint": undo,
            "parameters": sum(p.numel() for p in module.parameters()),
            **_shared(training, name),
        },
    )


def _draw(module: nn.Module) -> None:
    with torch.no_grad():
        for part in reversed(list(module.modules())):
            draw = drawing(part)
            if draw is not None:
                draw()


def _check_kept(name: str, before: list[int], after: list[int]) -> None:
    if before != after:
        raise Refused(f"{name}: its reset_parameters replaces what the optimizer trains")


def _identities(training: Training, name: str) -> list[int]:
    return [id(p) for p in training.modules.trained(name)]


def _go_back(training: Training, undo: str) -> None:
    training.go_to(training.state_of(undo))


def norm(parameters: Iterable[nn.Parameter]) -> float:
    """2-norm over all parameters together; NaN or infinite if any number is."""
    total = sum(float(p.detach().double().square().sum()) for p in parameters)
    return math.sqrt(total) if math.isfinite(total) else total


def freeze(intervention: Freeze, training: Training) -> Applied:
    """Withhold the gradients of the module's parameters from every update."""
    frozen, name = training.hooks.frozen, intervention.module
    parameters = training.modules.trained(name)
    frozen.freeze(name, parameters)
    return Applied(
        changes=(Change(field=f"{name} frozen", old=False, new=True),),
        checks=(Check(f"{name} frozen", constant(True), lambda: frozen.held, after_update=True),),
        inverse=(Unfreeze(module=name),),
        results={
            "parameters": sum(p.numel() for p in parameters),
            **_shared(training, name),
        },
    )


def unfreeze(intervention: Unfreeze, training: Training) -> Applied:
    """Let the module's parameters take part in updates again."""
    frozen, name = training.hooks.frozen, intervention.module
    frozen.unfreeze(name)
    return Applied(
        changes=(Change(field=f"{name} frozen", old=True, new=False),),
        checks=(Check(f"{name} frozen", constant(False), lambda: name in frozen.names),),
        inverse=(Freeze(module=name),),
    )


def _shared(training: Training, name: str) -> dict[str, str]:
    """Modules that the same parameters are tied to, where there are any."""
    sharing = training.modules.sharing(name)
    return {"shared_with": ", ".join(sharing)} if sharing else {}


def set_batch(intervention: SetBatch, training: Training) -> Applied:
    """Make the updates that are begun from now on of so many batches."""
    accumulation = training.accumulation
    assert accumulation is not None, "capabilities offer it only where the loop accumulates"
    old = accumulation.wanted
    accumulation.set(intervention.accumulation)
    return Applied(
        changes=(Change(field="accumulation", old=old, new=accumulation.wanted),),
        checks=(
            Check(
                "accumulation",
                constant(intervention.accumulation),
                lambda: accumulation.in_force,
                after_update=True,
            ),
        ),
        inverse=(SetBatch(accumulation=old),),
    )
