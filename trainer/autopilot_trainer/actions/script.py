"""What the training script brings itself or what only looks: knobs, actions, evaluation, notes."""

from typing import Any

from autopilot.schema import (
    CallAction,
    Change,
    Evaluate,
    Note,
    SaveCheckpoint,
    SetKnob,
)
from autopilot_trainer.actions.applied import Applied, Check, constant
from autopilot_trainer.training import Training

_CHANGES_NOTHING = "it changes nothing that would need undoing"


def set_knob(intervention: SetKnob, training: Training) -> Applied:
    """Set a control of the script's own."""
    knob = training.knobs[intervention.name]
    old = knob.get()
    value: Any = intervention.value
    if isinstance(old, float) and isinstance(value, int):
        value = float(value)
    knob.set(value)
    training.turned.add(knob.name)
    field = f"knob {knob.name}"
    return Applied(
        changes=(Change(field=field, old=old, new=knob.get()),),
        checks=(Check(field, constant(value), knob.get),),
        inverse=(SetKnob(name=knob.name, value=old),),
    )


def call_action(intervention: CallAction, training: Training) -> Applied:
    """Call a function of the script's own."""
    action = training.actions[intervention.name]
    result = action.call(**intervention.arguments)
    shown = result if isinstance(result, bool | int | float | str) else repr(result)[:500]
    return Applied(
        no_inverse="what the script's own action did, only the script can undo",
        results={} if result is None else {"result": shown},
    )


def evaluate(intervention: Evaluate, training: Training) -> Applied:
    """Run the evaluation here and now."""
    return Applied(no_inverse=_CHANGES_NOTHING, results=dict(training.evaluate()))


def save_checkpoint(intervention: SaveCheckpoint, training: Training) -> Applied:
    """Write a durable checkpoint here and now."""
    info = training.save(intervention.tag)
    return Applied(
        no_inverse=_CHANGES_NOTHING, results={"checkpoint": info.id, "bytes": info.bytes}
    )


def note(intervention: Note, training: Training) -> Applied:
    """The journal has it already: the proposal that carries it."""
    return Applied(no_inverse=_CHANGES_NOTHING)
