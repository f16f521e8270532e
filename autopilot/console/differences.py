"""What a proposal would change, as old and new values of what is in force."""

from collections.abc import Iterable, Iterator

from autopilot.console.words import clean, number
from autopilot.schema import (
    Capabilities,
    Freeze,
    Intervention,
    Pause,
    ResetModule,
    ResetOptimizerState,
    Resume,
    RewarmLR,
    Rollback,
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
    Window,
)

_UNDONE_BY_NOTHING = {
    "skip_batches": "batches that were left out have passed",
    "call_action": "what the script's own action does is not known",
    "stop": "the loop has ended",
}
_CHANGE_NOTHING = frozenset({"evaluate", "save_checkpoint", "note"})
_PLANNED = {"plan": "lr_plan", "schedule": "lr_scheduled"}


def differences(interventions: Iterable[Intervention], window: Window) -> list[str]:
    """A line for each value that would change, in order; later ones build on earlier ones.

    A value that the run does not tell is shown as ``?``.
    """
    values = _values(window.run.capabilities)
    return [line for one in interventions for line in _lines(one, values, window)]


def undo_words(interventions: Iterable[Intervention]) -> str:
    """How it is undone, or why it cannot be."""
    kinds = [one.kind for one in interventions if one.kind not in _CHANGE_NOTHING]
    never = [f"{kind}: {_UNDONE_BY_NOTHING[kind]}" for kind in kinds if kind in _UNDONE_BY_NOTHING]
    if not kinds:
        return "nothing to undo"
    if never:
        return f"cannot be undone ({'; '.join(dict.fromkeys(never))})"
    back = {"rollback", "branch", "switch_branch", "reset_optimizer_state", "reset_module"}
    how = "the state before it is kept" if back & set(kinds) else "the old values are kept"
    return f"autopilot undo, at any time: {how}"


def _values(run: Capabilities) -> dict[str, object]:
    values: dict[str, object] = {name: one.value for name, one in run.settings.items()}
    values |= {f"knob {name}": setting.value for name, setting in run.knobs.items()}
    return values


def _lines(one: Intervention, values: dict[str, object], window: Window) -> Iterator[str]:
    match one:
        case ScaleLR() | SetLR():
            yield _learning_rate(one, values)
        case RewarmLR(steps=steps):
            yield f"lr: ramped up from near 0 over {steps} steps"
        case SetOptimizer(name=name, value=new):
            yield _change(f"optimizer.{name}", new, values)
        case SetGradClip(max_norm=new):
            yield _change("grad_clip", new, values)
        case SetKnob(name=name, value=new):
            yield _change(f"knob {name}", new, values)
        case SetBatch(accumulation=new):
            yield _change("accumulation", new, values)
        case SetModule(module=module, name=name, value=new):
            listed = window.run.capabilities.modules.get(module)
            setting = listed.settings.get(name) if listed is not None else None
            old = setting.value if setting is not None else "?"
            yield f"{clean(module)}.{clean(name)}: {number(old)} → {number(new)}"
        case Freeze(module=module) | Unfreeze(module=module):
            ends = "trained → frozen" if isinstance(one, Freeze) else "frozen → trained"
            yield f"{clean(module)}: {ends}"
        case ResetModule(module=module):
            yield f"{clean(module)}: trained parameters → drawn anew"
        case ResetOptimizerState(moments=moments):
            yield f"optimizer's moments ({moments}): kept → made afresh"
        case Rollback(checkpoint=checkpoint, skip_batches=skipped):
            yield f"step: {window.run.step} → {_step_of(checkpoint, window)}"
            yield f"branch: {window.run.branch} → a new one"
            if skipped:
                yield f"batches: the next {skipped} are left out"
        case SkipBatches(count=count):
            yield f"batches: the next {count} are left out"
        case StartBranch(name=name) | SwitchBranch(name=name):
            yield f"branch: {window.run.branch} → {name}"
        case Pause() | Resume() | Stop():
            ends = {"pause": "paused", "resume": "running", "stop": "ended"}[one.kind]
            yield f"training: {window.run.status} → {ends}"
        case _:
            return


def _learning_rate(one: ScaleLR | SetLR, values: dict[str, object]) -> str:
    old, follows = values.get("lr", "?"), ""
    new: object
    if isinstance(one, ScaleLR):
        new = old * one.factor if isinstance(old, int | float) else f"times {number(one.factor)}"
    elif isinstance(one.value, str):
        new, follows = values.get(_PLANNED[one.value], "?"), f", following the {one.value}"
    else:
        new = one.value
    if one.groups is not None:  # the one rate that the run tells is its first group's
        what = f"times {number(one.factor)}" if isinstance(one, ScaleLR) else number(new)
        return f"lr of groups {', '.join(map(str, one.groups))}: → {what}{follows}"
    values["lr"] = new
    return f"lr: {number(old)} → {number(new)}{follows}"


def _change(name: str, new: object, values: dict[str, object]) -> str:
    old = number(values[name]) if name in values else "?"
    values[name] = new
    return f"{clean(name)}: {old} → {number(new)}"


def _step_of(checkpoint: str, window: Window) -> str:
    if checkpoint == "last_good":
        return "that of the last good state"
    found = next((one for one in window.checkpoints if one.id == checkpoint), None)
    if found is None:
        return f"that of {clean(checkpoint, 100)}"
    return f"{found.step} ({'' if found.good else 'NOT known to be '}good)"
