"""What a run can do at all: interventions checked against the capabilities it publishes."""

import sys
from collections.abc import Iterable, Mapping
from typing import assert_never

from autopilot.schema import (
    CallAction,
    Capabilities,
    CheckpointInfo,
    Evaluate,
    Freeze,
    Intervention,
    ModuleInfo,
    Note,
    Pause,
    ResetModule,
    ResetOptimizerState,
    Resume,
    RewarmLR,
    Rollback,
    SaveCheckpoint,
    Scalar,
    ScaleLR,
    SetBatch,
    SetGradClip,
    SetKnob,
    SetLR,
    SetModule,
    SetOptimizer,
    Setting,
    SkipBatches,
    StartBranch,
    Stop,
    SwitchBranch,
    Unfreeze,
)

LAST_GOOD = "last_good"


def find_checkpoint(reference: str, checkpoints: Iterable[CheckpointInfo]) -> CheckpointInfo | None:
    """The checkpoint of that id, or the newest good one for ``last_good``."""
    if reference == LAST_GOOD:
        good = [checkpoint for checkpoint in checkpoints if checkpoint.good]
        return max(good, key=lambda checkpoint: checkpoint.step, default=None)
    return next((c for c in checkpoints if c.id == reference), None)


def check_supported(
    intervention: Intervention,
    capabilities: Capabilities,
    checkpoints: Iterable[CheckpointInfo] = (),
) -> str | None:
    """Say why a run cannot do this; None if it can."""
    if intervention.kind not in capabilities.interventions:
        offered = ", ".join(capabilities.interventions) or "nothing"
        return f"{intervention.kind} is not supported by this run; it offers {offered}"
    match intervention:
        case Rollback():
            return _check_rollback(intervention, tuple(checkpoints))
        case SetKnob():
            return _check_value(intervention.name, intervention.value, capabilities.knobs, "knob")
        case SetOptimizer():
            name = f"optimizer.{intervention.name}"
            return _check_optimizer(name, intervention, capabilities) or _check_groups(
                intervention.groups, capabilities
            )
        case CallAction():
            return _check_action(intervention, capabilities)
        case SetLR(value="plan") if not capabilities.lr_plan_declared:
            return "set_lr 'plan': this run declared no plan; use 'schedule' or a number"
        case ScaleLR() | SetLR():
            return _check_groups(intervention.groups, capabilities)
        case SetModule() | ResetModule() | Freeze() | Unfreeze():
            return _check_module(intervention, capabilities)
        case SetBatch():
            name = "accumulation"
            return _check_value(name, intervention.accumulation, capabilities.settings, "setting")
        case StartBranch():
            return _check_new_branch(intervention, capabilities, tuple(checkpoints))
        case SwitchBranch():
            return _check_switch(intervention, capabilities)
        case (
            RewarmLR()
            | SetGradClip()
            | ResetOptimizerState()
            | SkipBatches()
            | Evaluate()
            | SaveCheckpoint()
            | Pause()
            | Resume()
            | Stop()
            | Note()
        ):
            return None
        case _:
            assert_never(intervention)


def _check_rollback(rollback: Rollback, checkpoints: tuple[CheckpointInfo, ...]) -> str | None:
    return _check_checkpoint("rollback", rollback.checkpoint, checkpoints)


def _check_checkpoint(
    kind: str, reference: str, checkpoints: tuple[CheckpointInfo, ...]
) -> str | None:
    if find_checkpoint(reference, checkpoints):
        return None
    if reference == LAST_GOOD:
        return f"{kind}: no checkpoint is known to be good yet"
    held = ", ".join(c.id for c in checkpoints[-5:]) or "none"
    return f"{kind}: no checkpoint {reference!r}; the latest are: {held}"


def _check_module(
    intervention: SetModule | ResetModule | Freeze | Unfreeze, capabilities: Capabilities
) -> str | None:
    kind, name, frozen = intervention.kind, intervention.module, capabilities.frozen
    if isinstance(intervention, Unfreeze):
        if name in frozen:
            return None
        return f"unfreeze: {name!r} is not frozen by that name; frozen are: {_some(frozen)}"
    module = capabilities.modules.get(name)
    if module is None:
        usable = [n for n, held in capabilities.modules.items() if _serves(intervention, held)]
        return f"{kind}: no module {name!r}; {kind} can address: {_some(usable)}"
    if not _serves(intervention, module):
        return f"{kind}: {name} ({module.type}) {_unfit(intervention, module)}"
    if isinstance(intervention, SetModule):
        setting = module.settings[intervention.name]
        return _check_setting(f"{name}.{intervention.name}", intervention.value, setting)
    if isinstance(intervention, Freeze) and name in frozen:
        return f"freeze: {name} is frozen already"
    return None


def _serves(intervention: SetModule | ResetModule | Freeze, module: ModuleInfo) -> bool:
    match intervention:
        case SetModule():
            return intervention.name in module.settings
        case ResetModule():
            return module.resettable
        case Freeze():
            return module.trained > 0
        case _:
            assert_never(intervention)


def _unfit(intervention: SetModule | ResetModule | Freeze, module: ModuleInfo) -> str:
    match intervention:
        case SetModule():
            return f"has no setting {intervention.name!r}; it has: {_some(module.settings)}"
        case ResetModule():
            return "has parameters that none of its parts can draw anew, or none at all"
        case Freeze():
            return "has no parameters that the optimizer moves"
        case _:
            assert_never(intervention)


def _some(names: Iterable[str], most: int = 8) -> str:
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more or "none"


def _check_new_branch(
    branch: StartBranch, capabilities: Capabilities, checkpoints: tuple[CheckpointInfo, ...]
) -> str | None:
    taken = capabilities.branches
    if branch.name in taken:
        return f"branch: there is a branch {branch.name!r} already; switch_branch goes to it"
    if branch.checkpoint is None:
        return None
    return _check_checkpoint("branch", branch.checkpoint, checkpoints)


def _check_switch(switch: SwitchBranch, capabilities: Capabilities) -> str | None:
    states = capabilities.branches
    if states.get(switch.name) is not None:
        return None
    if switch.name in states:
        return f"switch_branch: the run is on {switch.name!r}, or no state of it is held"
    return f"switch_branch: no branch {switch.name!r}; there are: {_some(states)}"


def _check_groups(groups: tuple[int, ...] | None, capabilities: Capabilities) -> str | None:
    if groups is None:
        return None
    setting = capabilities.settings.get("optimizer.groups")
    count = int(setting.value) if setting and isinstance(setting.value, int | float) else 1
    wrong = [group for group in groups if group >= count]
    if wrong or not groups:
        return f"groups {list(groups)}: this optimizer has groups 0 to {count - 1}"
    return None


def _check_optimizer(
    name: str, intervention: SetOptimizer, capabilities: Capabilities
) -> str | None:
    value = intervention.value
    if name not in capabilities.settings:
        known = [s.removeprefix("optimizer.") for s in capabilities.settings if "." in s]
        return f"set_optimizer: no setting {intervention.name!r}; this run has {', '.join(known)}"
    setting = capabilities.settings[name]
    if value == "schedule":
        return None
    if setting.type == "pair":
        if not isinstance(value, tuple) or not all(0 <= beta < 1 for beta in value):
            return f"{name}: expected two numbers in [0, 1), got {value!r}"
        return None
    if isinstance(value, tuple):
        return f"{name}: expected one value, got a pair"
    return _check_setting(name, value, setting)


def _check_value(
    name: str, value: Scalar, settings: Mapping[str, Setting], what: str
) -> str | None:
    if name not in settings:
        return f"no {what} {name!r}; this run has: {', '.join(settings) or 'none'}"
    return _check_setting(f"{what} {name}", value, settings[name])


_TYPES: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "str": str}


def _check_setting(label: str, value: Scalar, setting: Setting) -> str | None:
    if setting.type == "bool":
        if not isinstance(value, bool):
            return f"{label}: expected true or false, got {value!r}"
    elif isinstance(value, bool) or not isinstance(value, _TYPES.get(setting.type, object)):
        return f"{label}: expected {setting.type}, got {value!r}"
    if setting.choices is not None and value not in setting.choices:
        return f"{label}: expected one of {list(setting.choices)}, got {value!r}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low = float("-inf") if setting.minimum is None else setting.minimum
        high = float("inf") if setting.maximum is None else setting.maximum
        if not low <= value <= high or abs(value) > sys.float_info.max:  # NaN fails too
            return f"{label}: {value!r} is out of bounds; allowed: value{_bounds(setting)}"
    return None


def _bounds(setting: Setting) -> str:
    low = "" if setting.minimum is None else f" from {setting.minimum!r}"
    high = "" if setting.maximum is None else f" to {setting.maximum!r}"
    return low + high or " finite"


_ARGUMENT_TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "str": str,
    "bool": bool,
}


def _check_action(call: CallAction, capabilities: Capabilities) -> str | None:
    if call.name not in capabilities.actions:
        known = ", ".join(capabilities.actions) or "none"
        return f"no action {call.name!r}; this run has: {known}"
    expected = capabilities.actions[call.name]
    required = {name for name, kind in expected.items() if not kind.endswith("?")}
    if not required <= call.arguments.keys() <= expected.keys():
        return f"action {call.name}: expected arguments {expected}, got {sorted(call.arguments)}"
    for name, value in call.arguments.items():
        wanted = expected[name].removesuffix("?")
        if not isinstance(value, _ARGUMENT_TYPES.get(wanted, object)) or (
            isinstance(value, bool) and wanted != "bool"
        ):
            return f"action {call.name}: {name} must be {wanted}, got {value!r}"
    return None
