"""Applying interventions to a training: one function each, applied together or not at all."""

import logging
from typing import assert_never

from autopilot.schema import (
    CallAction,
    Command,
    Evaluate,
    Freeze,
    Intervention,
    Note,
    Pause,
    Receipt,
    ResetModule,
    ResetOptimizerState,
    Resume,
    RewarmLR,
    Rollback,
    SaveCheckpoint,
    ScaleLR,
    SetBatch,
    SetGradClip,
    SetKnob,
    SetLR,
    SetModule,
    SetOptimizer,
    SkipBatches,
    StartBranch,
    Stop,
    SwitchBranch,
    Unfreeze,
)
from autopilot_trainer.actions import branches, course, learning_rate, model, optimizer, script
from autopilot_trainer.actions.applied import Applied, Check
from autopilot_trainer.training import Training

log = logging.getLogger("autopilot.trainer")

_MOST_AT_ONCE = 8
"""Interventions that one proposal may hold."""


def apply(intervention: Intervention, training: Training) -> Applied:
    """Apply one intervention."""
    match intervention:
        case ScaleLR():
            return learning_rate.scale_lr(intervention, training)
        case SetLR():
            return learning_rate.set_lr(intervention, training)
        case RewarmLR():
            return learning_rate.rewarm_lr(intervention, training)
        case SetOptimizer():
            return optimizer.set_optimizer(intervention, training)
        case SetGradClip():
            return optimizer.set_grad_clip(intervention, training)
        case ResetOptimizerState():
            return optimizer.reset_optimizer_state(intervention, training)
        case Rollback():
            return course.rollback(intervention, training)
        case SkipBatches():
            return course.skip_batches(intervention, training)
        case StartBranch():
            return branches.start_branch(intervention, training)
        case SwitchBranch():
            return branches.switch_branch(intervention, training)
        case SetModule():
            return model.set_module(intervention, training)
        case ResetModule():
            return model.reset_module(intervention, training)
        case Freeze():
            return model.freeze(intervention, training)
        case Unfreeze():
            return model.unfreeze(intervention, training)
        case SetBatch():
            return model.set_batch(intervention, training)
        case Pause():
            return course.pause(intervention, training)
        case Resume():
            return course.resume(intervention, training)
        case Stop():
            return course.stop(intervention, training)
        case SetKnob():
            return script.set_knob(intervention, training)
        case CallAction():
            return script.call_action(intervention, training)
        case Evaluate():
            return script.evaluate(intervention, training)
        case SaveCheckpoint():
            return script.save_checkpoint(intervention, training)
        case Note():
            return script.note(intervention, training)
        case _:
            assert_never(intervention)


def apply_all(command: Command, training: Training) -> tuple[Receipt, tuple[Check, ...]]:
    """Apply a command's interventions in order; if one fails, those before it are undone.

    Returns:
        The receipt, its read-backs still outstanding where there are checks, and the checks.
    """
    step, done = training.step, list[Applied]()
    try:
        for intervention in command.interventions:
            done.append(apply(intervention, training))
    except Exception:
        for applied in reversed(done):
            _take_back(applied, training)
        raise
    # Of several checks of one value, the last intervention's says what should be in force.
    checks = tuple({check.field: check for applied in done for check in applied.checks}.values())
    results = {key: value for applied in done for key, value in applied.results.items()}
    inverse = tuple(i for applied in reversed(done) for i in applied.inverse)
    missing = [applied.no_inverse for applied in done if applied.no_inverse]
    if len(inverse) > _MOST_AT_ONCE:
        inverse, missing = (), [*missing, "undoing it takes more than one proposal may hold"]
    undo_checkpoint = results.pop("undo_checkpoint", None)
    receipt = Receipt(
        command=command.id,
        step=step,
        branch=training.branch,
        changes=tuple(change for applied in done for change in applied.changes),
        proven=None if checks else True,
        inverse=inverse,
        no_inverse="; ".join(dict.fromkeys(missing)) or None,
        undo_checkpoint=str(undo_checkpoint) if undo_checkpoint is not None else None,
        results=results,
    )
    return receipt, checks


def _take_back(applied: Applied, training: Training) -> None:
    """Undo as much as can be undone; one failure leaves the others undone all the same."""
    try:
        if applied.take_back is not None:
            applied.take_back()
            return
        for undo in applied.inverse:
            apply(undo, training)
    except Exception:
        log.exception("an intervention of a command that failed could not be taken back")


__all__ = ["Applied", "Check", "apply", "apply_all"]
