"""What a model can answer with: one class an action, closed, typed and bounded.

Each becomes one tool. Its docstring is the tool's description; no text of the run is in it, so that
the tools are the same for a whole run. A remedy of several interventions is one action with
optional fields, applied all together or not at all.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from autopilot.policy import Limits
from autopilot.schema import (
    CallAction,
    Diagnosis,
    Evaluate,
    Intervention,
    Pause,
    ResetOptimizerState,
    Resume,
    RewarmLR,
    Rollback,
    SaveCheckpoint,
    Scalar,
    ScaleLR,
    SetGradClip,
    SetKnob,
    SetLR,
    SetOptimizer,
    SkipBatches,
    Stop,
)
from autopilot.schema.interventions import OptimizerSetting

Figure = Annotated[str, Field(description="metric@step=value")]


class Answer(BaseModel):
    """What every answer says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    diagnosis: Diagnosis
    rationale: str = Field(min_length=1)


class Wait(Answer):
    """Change nothing now: benign, not yet, or the figures do not tell (cannot_tell)."""

    evidence: list[Figure] = Field(default=[], max_length=8)
    why: Literal["benign", "not_yet", "cannot_tell"]
    look_again_after_steps: int = Field(default=50, ge=5, le=2000)


class Action(Answer):
    """An answer that changes something."""

    kind: ClassVar[str]
    extras: ClassVar[tuple[type[BaseModel], ...]] = ()
    evidence: list[Figure] = Field(min_length=1, max_length=8)
    expected_effect: str = Field(min_length=1)

    @abstractmethod
    def first(self) -> tuple[Intervention, ...]:
        """The interventions that the action itself is."""

    def interventions(self) -> tuple[Intervention, ...]:
        """All of it, in the order of application."""
        found = list(self.first())
        if isinstance(self, _ToPlan) and self.lr_to_plan:
            found.append(SetLR(value="plan"))
        if isinstance(self, _Scaled) and self.lr_factor is not None:
            found.append(ScaleLR(factor=self.lr_factor))
        if isinstance(self, _Clipped) and self.max_norm is not None:
            found.append(SetGradClip(max_norm=self.max_norm))
        if isinstance(self, _Rewarmed) and self.rewarm_steps:
            found.append(RewarmLR(steps=self.rewarm_steps))
        return tuple(found)


# --- what may go along with an action -----------------------------------------------------------


class _ToPlan(BaseModel):
    lr_to_plan: bool = Field(default=False, description="and follow the declared plan again")


class _Scaled(BaseModel):
    lr_factor: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="and multiply the learning rate by it"
    )


class _Clipped(BaseModel):
    max_norm: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="and clip gradients at this norm"
    )


class _Rewarmed(BaseModel):
    rewarm_steps: int | None = Field(
        default=None, ge=0, le=100_000, description="and ramp the learning rate up over so many"
    )


_EXTRAS: dict[type[BaseModel], str] = {
    _Rewarmed: "rewarm_lr",
    _Clipped: "set_grad_clip",
    _Scaled: "scale_lr",
    _ToPlan: "set_lr",
}
"""The kind that must be offered for each; in the reverse order of the fields."""


# --- the actions ----------------------------------------------------------------------------------


class GoBack(Action):
    """Go back to an earlier state, and remove the cause in the same action. For damaged weights."""

    kind: ClassVar[str] = "rollback"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed, _Clipped, _Scaled, _ToPlan)
    checkpoint: str = Field(default="last_good", min_length=1, max_length=100)
    skip_batches: int = Field(
        default=0, ge=0, le=1_000_000, description="leave out so many batches, counted from there"
    )

    def first(self) -> tuple[Intervention, ...]:
        return (Rollback(checkpoint=self.checkpoint, skip_batches=self.skip_batches),)


class Scale(Action):
    """Multiply the learning rate in force, in place."""

    kind: ClassVar[str] = "scale_lr"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed,)
    factor: float = Field(ge=0.001, le=1000, allow_inf_nan=False)

    def first(self) -> tuple[Intervention, ...]:
        return (ScaleLR(factor=self.factor),)


class Rate(Action):
    """Set the learning rate in place: a number, the declared plan, or the loop's own schedule."""

    kind: ClassVar[str] = "set_lr"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed,)
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["plan", "schedule"]

    def first(self) -> tuple[Intervention, ...]:
        return (SetLR(value=self.value),)


class Rewarm(Action):
    """Ramp the learning rate up from near zero over so many steps, in place."""

    kind: ClassVar[str] = "rewarm_lr"
    steps: int = Field(ge=0, le=100_000)

    def first(self) -> tuple[Intervention, ...]:
        return (RewarmLR(steps=self.steps),)


class Optimizer(Action):
    """Set one hyperparameter of the optimizer, in place. betas is a pair."""

    kind: ClassVar[str] = "set_optimizer"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed,)
    name: OptimizerSetting
    value: (
        bool
        | Annotated[float, Field(ge=0, allow_inf_nan=False)]
        | tuple[float, float]
        | Literal["schedule"]
    )

    def first(self) -> tuple[Intervention, ...]:
        return (SetOptimizer(name=self.name, value=self.value),)


class Clip(Action):
    """Clip the gradient norm, in place; null switches the session's clipping off."""

    kind: ClassVar[str] = "set_grad_clip"
    max_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None

    def first(self) -> tuple[Intervention, ...]:
        return (SetGradClip(max_norm=self.max_norm),)


class Reset(Action):
    """Zero the optimizer's running moments, in place: where they are out of date."""

    kind: ClassVar[str] = "reset_optimizer_state"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed,)
    moments: Literal["first", "second", "all"] = "all"

    def first(self) -> tuple[Intervention, ...]:
        return (ResetOptimizerState(moments=self.moments),)


class Skip(Action):
    """Leave out the next batches of the data, without going back."""

    kind: ClassVar[str] = "skip_batches"
    count: int = Field(ge=1, le=1_000_000)

    def first(self) -> tuple[Intervention, ...]:
        return (SkipBatches(count=self.count),)


class Measure(Action):
    """Run the evaluation now: where held-out loss would tell damage from a disturbance."""

    kind: ClassVar[str] = "evaluate"

    def first(self) -> tuple[Intervention, ...]:
        return (Evaluate(),)


class Save(Action):
    """Write a durable checkpoint now."""

    kind: ClassVar[str] = "save_checkpoint"

    def first(self) -> tuple[Intervention, ...]:
        return (SaveCheckpoint(),)


class Hold(Action):
    """Hold the run until somebody resumes it: where only a person can mend the cause."""

    kind: ClassVar[str] = "pause"

    def first(self) -> tuple[Intervention, ...]:
        return (Pause(),)


class Continue(Action):
    """Let a held run go on."""

    kind: ClassVar[str] = "resume"

    def first(self) -> tuple[Intervention, ...]:
        return (Resume(),)


class End(Action):
    """End the training, with a checkpoint unless save is false."""

    kind: ClassVar[str] = "stop"
    save: bool = True

    def first(self) -> tuple[Intervention, ...]:
        return (Stop(save=self.save),)


class Knob(Action):
    """Set a knob of the training script."""

    kind: ClassVar[str] = "set_knob"
    name: str = Field(min_length=1, max_length=100)
    value: Scalar

    def first(self) -> tuple[Intervention, ...]:
        return (SetKnob(name=self.name, value=self.value),)


class Call(Action):
    """Call an action of the training script."""

    kind: ClassVar[str] = "call_action"
    name: str = Field(min_length=1, max_length=100)
    arguments: dict[str, Scalar] = Field(default={})

    def first(self) -> tuple[Intervention, ...]:
        return (CallAction(name=self.name, arguments=self.arguments),)


ACTIONS: tuple[type[Action], ...] = (
    GoBack, Scale, Rate, Rewarm, Optimizer, Clip, Reset, Skip, Knob, Call, Measure, Save, Hold,
    Continue, End,
)  # fmt: skip
"""Every action. Of all interventions only ``note`` is none: ``wait`` says what it would."""

NAMES: dict[type[Action], str] = {GoBack: "go_back"}
"""Tools that are more than the intervention they are named after."""


def answers(
    kinds: Collection[str], limits: Limits, *, lr_plan_declared: bool = True
) -> tuple[type[Answer], ...]:
    """The answers to offer, in a fixed order, with ``wait`` at the end.

    Args:
        kinds: Kinds of intervention that the run supports and the policy does not plainly deny.
        limits: The policy's bounds; they go into the tools' own.
        lr_plan_declared: There is a plan to go back to.
    """
    usable = set(kinds) if lr_plan_declared else set(kinds) - {"set_lr"}
    found: list[type[Answer]] = []
    for action in ACTIONS:
        if action.kind in kinds:
            extras = tuple(extra for extra in action.extras if _EXTRAS[extra] in usable)
            name = NAMES.get(action, action.kind)
            found.append(_tool(name, (*extras, action), limits))
    return (*found, _tool("wait", (Wait,), limits))


def _tool(name: str, parts: tuple[type[BaseModel], ...], limits: Limits) -> Any:
    """A class of the tool's name; fields of the last part come first."""
    bounded = _bounded({k: v for part in parts for k, v in part.model_fields.items()}, limits)
    return create_model(name, __base__=parts, __doc__=parts[-1].__doc__, **bounded)


def _bounded(fields: Mapping[str, FieldInfo], limits: Limits) -> dict[str, Any]:
    """The fields that the policy bounds, with its bounds within those of the schema."""
    low, high = max(limits.lr.total_factor[0], 0.001), min(limits.lr.max_factor, 1000)
    factor = Annotated[float, Field(ge=low, le=high, allow_inf_nan=False)]
    norm = Annotated[float, Field(ge=limits.grad_clip.min, allow_inf_nan=False)]
    types: dict[str, Any] = {
        "factor": factor, "lr_factor": factor | None, "max_norm": norm | None
    }  # fmt: skip
    return {
        name: (types[name], Field(info.default, description=info.description))
        for name, info in fields.items()
        if name in types
    }
