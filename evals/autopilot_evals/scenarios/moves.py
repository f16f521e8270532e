"""Moves that menus are made of, by the names that reports show."""

from autopilot.schema import (
    Intervention,
    ResetOptimizerState,
    RewarmLR,
    Rollback,
    ScaleLR,
    SetGradClip,
    SetKnob,
    SetLR,
    SetOptimizer,
    SkipBatches,
    Stop,
)
from autopilot_evals.scenarios.base import BEFORE, START, Move

_BACK, _RESTART = Rollback(checkpoint=BEFORE), Rollback(checkpoint=START)
_REWARM = RewarmLR(steps=20)


def scale(factor: float) -> Move:
    """Scale the learning rate in place."""
    return Move(f"lr x {factor:g}", (ScaleLR(factor=factor),))


def back_and_scale(factor: float) -> Move:
    """Go back to before the fault, and on with the learning rate scaled and ramped up anew."""
    return Move(f"go back, lr x {factor:g}", (_BACK, ScaleLR(factor=factor), _REWARM))


def restart_and_scale(factor: float) -> Move:
    """Begin anew with the learning rate scaled and ramped up."""
    return Move(f"restart, lr x {factor:g}", (_RESTART, ScaleLR(factor=factor), _REWARM))


def back_and_skip(count: int) -> Move:
    """Go back to before the fault and leave out so many batches."""
    again = Rollback(checkpoint=BEFORE, skip_batches=count)
    return Move(f"go back, skip {count}", (again,))


def back_and(name: str, *interventions: Intervention) -> Move:
    """Go back to before the fault and change something."""
    return Move(f"go back, {name}", (_BACK, *interventions))


def restart_and(name: str, *interventions: Intervention) -> Move:
    """Begin anew and change something."""
    return Move(f"restart, {name}", (_RESTART, *interventions))


def optimizer(name: str, setting: SetOptimizer, *, rewarm: int = 0) -> Move:
    """Change a hyperparameter in place."""
    ramp = (RewarmLR(steps=rewarm),) if rewarm else ()
    return Move(name, (setting, *ramp))


def knob(name: str, value: float | str) -> Move:
    """Set a control of the loop in place."""
    shown = value if isinstance(value, str) else f"{value:g}"
    return Move(f"{name} = {shown}", (SetKnob(name=name, value=value),))


HALVE = scale(0.5)
TENTH = scale(0.1)
GO_BACK = Move("go back", (_BACK,))
FOLLOW_PLAN = Move("follow the plan", (SetLR(value="plan"),))
BACK_AND_FOLLOW_PLAN = back_and("follow the plan", SetLR(value="plan"))
CLIP = Move("clip at 1", (SetGradClip(max_norm=1.0),))
BACK_AND_CLIP = back_and("clip at 1", SetGradClip(max_norm=1.0))
SKIP = Move("skip 60", (SkipBatches(count=60),))
STOP = Move("stop", (Stop(save=False),))
BACK_AND_STOP = back_and("stop", Stop(save=False))
RESET = Move("reset the optimizer", (ResetOptimizerState(), _REWARM))

REFLEXES = (HALVE, TENTH, GO_BACK)
"""What people and rules try first whatever is the matter; on every menu."""
