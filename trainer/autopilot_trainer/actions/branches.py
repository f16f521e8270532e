"""branch, switch_branch, and the going back that rollback shares with them."""

from typing import Any

from autopilot.errors import NotFound, Refused
from autopilot.schema import Change, CheckpointInfo, StartBranch, SwitchBranch
from autopilot.supported import find_checkpoint
from autopilot_trainer.actions.applied import Applied, Check, constant
from autopilot_trainer.branches import branch_states
from autopilot_trainer.state import TrainingState
from autopilot_trainer.training import Training, plain

_OF_THE_STEP = frozenset({"lr_plan", "lr_scheduled", "lr_factor_min", "lr_factor_max"})


def start_branch(intervention: StartBranch, training: Training) -> Applied:
    """Go on under a new name, from here or from a checkpoint; what is in force stays.

    Raises:
        Refused: There is a branch of that name.
    """
    name = intervention.name
    if name in training.branch_names():
        raise Refused(f"branch {name!r} exists already")
    if intervention.checkpoint is None:
        left = leave(training)
        origin, state = left, None
    else:
        origin = held(training, intervention.checkpoint)
        state = training.state_of(origin.id)
        left = leave(training)
    old = _where(training)
    _enter(training, name, origin, state)
    return _applied(training, old, left, {"checkpoint": origin.id})


def switch_branch(intervention: SwitchBranch, training: Training) -> Applied:
    """Go on from another branch's newest state, with what was in force on it.

    Raises:
        NotFound: No state of that branch is held.
    """
    known = branch_states(training.branch_names(), training.checkpoints(), training.branch)
    target = known.get(intervention.name)
    if target is None:
        raise NotFound(f"no state of branch {intervention.name!r} is held")
    origin, state = held(training, target), training.state_of(target)
    left = leave(training)
    old, before = _where(training), _in_force(training)
    _enter(training, training.next_branch(intervention.name), origin, state)
    if state.in_force is not None:
        training.put_in_force(state.in_force)
    return _applied(
        training,
        old | before,
        left,
        {"checkpoint": origin.id, "settings_of_branch": state.in_force is not None},
    )


def leave(training: Training) -> CheckpointInfo:
    """Keep what the branch has come to, and what is in force on it, for good."""
    return training.save(training.branch)


def held(training: Training, reference: str) -> CheckpointInfo:
    """The checkpoint or snapshot meant; raises NotFound where there is none."""
    found = find_checkpoint(reference, training.plane.checkpoints())
    if found is None:
        raise NotFound(f"no checkpoint {reference!r}")
    return found


def _enter(
    training: Training, name: str, origin: CheckpointInfo, state: TrainingState | None
) -> None:
    """Begin a branch at a state of another one; None stays where the training is."""
    if state is not None:
        here = training.capture.take(training.step, training.stream)
        try:
            training.go_to(state)
        except Exception:
            training.go_to(here)
            raise
    training.branch = name
    training.plane.start_branch(name, origin.branch, training.step)


def _where(training: Training) -> dict[str, Any]:
    stream = training.stream
    cursor = stream.position.cursor if stream is not None else 0
    return {"step": training.step, "branch": training.branch, "batch": cursor}


def _in_force(training: Training) -> dict[str, Any]:
    """Everything that interventions may have put in force, by the names of its changes."""
    can = training.capabilities()
    values = {n: s.value for n, s in can.settings.items() if n not in _OF_THE_STEP}
    values |= {f"knob {name}": knob.value for name, knob in can.knobs.items()}
    values |= {f"{name} frozen": name in can.frozen for name in can.modules}
    for module, info in can.modules.items():
        values |= {f"{module}.{name}": setting.value for name, setting in info.settings.items()}
    return values


def _applied(
    training: Training, old: dict[str, Any], left: CheckpointInfo, results: dict[str, Any]
) -> Applied:
    branch, now = training.branch, _where(training) | _in_force(training)
    return Applied(
        changes=tuple(
            Change(field=field, old=plain(value), new=plain(now.get(field)))
            for field, value in old.items()
            if field in ("step", "branch", "batch") or now.get(field) != value
        ),
        checks=(Check("branch", constant(branch), lambda: training.branch),),
        inverse=(SwitchBranch(name=str(old["branch"])),),
        results={**results, "undo_checkpoint": left.id},
    )
