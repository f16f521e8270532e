"""What a model can answer with: one change out of a closed set, typed and bounded, or to wait.

There are two tools, ``propose`` and ``wait``. What every proposal says stands in ``propose`` once;
the changes that can be made now are the alternatives of one of its fields. No text of the run is in
any of it. A remedy of several interventions is one change with optional fields, applied all
together or not at all.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from autopilot.policy import Limits
from autopilot.schema import (
    CallAction,
    Capabilities,
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
    SetBatch,
    SetGradClip,
    SetKnob,
    SetLR,
    SetOptimizer,
    SkipBatches,
    Stop,
)
from autopilot.schema.interventions import OptimizerSetting


class Answer(BaseModel):
    """What a model can say."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Wait(Answer):
    """Change nothing now."""

    rationale: str = Field(min_length=1)
    why: Literal["benign", "not_yet", "cannot_tell"]
    look_again_after_steps: int = Field(default=50, ge=5, le=2000)


class Change(BaseModel):
    """One change to the run, of one kind.

    Attributes:
        needs: The kind of intervention that the run must offer for it.
        extras: What may go along with it.
        told: What its names do not tell a model already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    needs: ClassVar[str]
    extras: ClassVar[tuple[type[BaseModel], ...]] = ()
    told: ClassVar[str] = ""

    @abstractmethod
    def first(self) -> Intervention:
        """The intervention that the change itself is."""

    def interventions(self) -> tuple[Intervention, ...]:
        """All of it, in the order of application."""
        found = [self.first()]
        if isinstance(self, _ToPlan) and self.lr_to_plan:
            found.append(SetLR(value="plan"))
        if isinstance(self, _Scaled) and self.lr_factor is not None:
            found.append(ScaleLR(factor=self.lr_factor))
        if isinstance(self, _Clipped) and self.max_norm is not None:
            found.append(SetGradClip(max_norm=self.max_norm))
        if isinstance(self, _Rewarmed) and self.rewarm_steps:
            found.append(RewarmLR(steps=self.rewarm_steps))
        return tuple(found)


class Propose(Answer):
    """Change the run: one kind of change, its parts applied together."""

    diagnosis: Diagnosis
    rationale: str = Field(min_length=1)
    evidence: list[str] = Field(min_length=1, max_length=8, description="metric@step=value, each")
    expected_effect: str = Field(min_length=1)
    change: Change


# --- what may go along with a change --------------------------------------------------------------


class _ToPlan(BaseModel):
    lr_to_plan: bool = False


class _Scaled(BaseModel):
    lr_factor: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class _Clipped(BaseModel):
    max_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class _Rewarmed(BaseModel):
    rewarm_steps: int | None = Field(default=None, ge=0, le=100_000)


_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_VALUES: dict[str, Any] = dict.fromkeys(get_args(OptimizerSetting), _Number) | {
    "betas": tuple[float, float], "nesterov": bool, "amsgrad": bool
}  # fmt: skip
"""What each hyperparameter of an optimizer is."""
_EXTRAS: dict[type[BaseModel], str] = {
    _Rewarmed: "rewarm_lr",
    _Clipped: "set_grad_clip",
    _Scaled: "scale_lr",
    _ToPlan: "set_lr",
}
"""The kind that must be offered for each; in the reverse order of the fields."""


# --- the changes ----------------------------------------------------------------------------------


class GoBack(Change):
    """Go back to an earlier state, and remove the cause in the same change."""

    needs: ClassVar[str] = "rollback"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed, _Clipped, _Scaled, _ToPlan)
    kind: Literal["go_back"]
    checkpoint: str = Field(
        default="last_good", min_length=1, max_length=100, description="as shown, or last_good"
    )
    skip_batches: int = Field(default=0, ge=0, le=1_000_000)

    def first(self) -> Intervention:
        return Rollback(checkpoint=self.checkpoint, skip_batches=self.skip_batches)


class Scale(Change):
    """Multiply the learning rate in force."""

    needs: ClassVar[str] = "scale_lr"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed,)
    kind: Literal["scale_lr"]
    factor: float = Field(ge=0.001, le=1000, allow_inf_nan=False)

    def first(self) -> Intervention:
        return ScaleLR(factor=self.factor)


class Rate(Change):
    """Set the learning rate: a number, the declared plan, or the loop's own schedule."""

    needs: ClassVar[str] = "set_lr"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed,)
    told: ClassVar[str] = "schedule: the loop's own"
    kind: Literal["set_lr"]
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["plan", "schedule"]

    def first(self) -> Intervention:
        return SetLR(value=self.value)


class Optimizer(Change):
    """Set one hyperparameter of the optimizer."""

    needs: ClassVar[str] = "set_optimizer"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed,)
    kind: Literal["set_optimizer"]
    name: OptimizerSetting
    value: bool | _Number | tuple[float, float] | Literal["schedule"]

    def first(self) -> Intervention:
        return SetOptimizer(name=self.name, value=self.value)


class Clip(Change):
    """Clip the gradient norm; null switches the session's clipping off."""

    needs: ClassVar[str] = "set_grad_clip"
    told: ClassVar[str] = "null: off"
    kind: Literal["set_grad_clip"]
    max_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None

    def first(self) -> Intervention:
        return SetGradClip(max_norm=self.max_norm)


class Reset(Change):
    """Zero the optimizer's running moments."""

    needs: ClassVar[str] = "reset_optimizer_state"
    extras: ClassVar[tuple[type[BaseModel], ...]] = (_Rewarmed,)
    kind: Literal["reset_optimizer_state"]
    moments: Literal["first", "second", "all"] = "all"

    def first(self) -> Intervention:
        return ResetOptimizerState(moments=self.moments)


class Skip(Change):
    """Leave out the next batches of the data, without going back."""

    needs: ClassVar[str] = "skip_batches"
    told: ClassVar[str] = "the next ones, without going back"
    kind: Literal["skip_batches"]
    count: int = Field(ge=1, le=1_000_000)

    def first(self) -> Intervention:
        return SkipBatches(count=self.count)


class Batch(Change):
    """Make an update of so many micro-batches."""

    needs: ClassVar[str] = "set_batch"
    kind: Literal["set_batch"]
    accumulation: int = Field(ge=1, le=65_536)

    def first(self) -> Intervention:
        return SetBatch(accumulation=self.accumulation)


class Knob(Change):
    """Set a knob of the training script."""

    needs: ClassVar[str] = "set_knob"
    kind: Literal["set_knob"]
    name: str = Field(min_length=1, max_length=100)
    value: Scalar

    def first(self) -> Intervention:
        return SetKnob(name=self.name, value=self.value)


class Call(Change):
    """Call an action of the training script."""

    needs: ClassVar[str] = "call_action"
    kind: Literal["call_action"]
    name: str = Field(min_length=1, max_length=100)
    arguments: dict[str, Scalar] = Field(default={})

    def first(self) -> Intervention:
        return CallAction(name=self.name, arguments=self.arguments)


class Plain(Change):
    """A change whose kind says all; a run that is ended is saved first."""

    kind: str

    def first(self) -> Intervention:
        return PLAIN[self.kind]


CHANGES: tuple[type[Change], ...] = (
    GoBack, Scale, Rate, Optimizer, Clip, Reset, Skip, Batch, Knob, Call,
)  # fmt: skip
"""Every change that has parameters."""
PLAIN: dict[str, Intervention] = {
    "evaluate": Evaluate(), "save_checkpoint": SaveCheckpoint(), "pause": Pause(),
    "resume": Resume(), "stop": Stop(),
}  # fmt: skip
"""Every one that has none."""
UNOFFERED = frozenset(
    {"note", "rewarm_lr", "set_module", "reset_module", "freeze", "unfreeze", "branch",
     "switch_branch"}
)  # fmt: skip
"""Interventions that no model chooses by themselves: ``wait`` says what a note would, a re-warm-up
helps only along with another change, a window shows no modules, and branches are for people."""


def answers(kinds: Collection[str], limits: Limits, can: Capabilities) -> tuple[type[Answer], ...]:
    """The answers to offer, ``propose`` first; without it where no kind of change is left.

    Args:
        kinds: Kinds of intervention that the run supports and the policy does not plainly deny.
        limits: The policy's bounds; they go into the tools' own.
        can: What the run offers: what it has no plan, knob, action or setting for is left out.
    """
    usable = set(kinds) if can.lr_plan_declared else set(kinds) - {"set_lr"}
    changes: list[Any] = []
    for change in CHANGES:
        if change.needs in kinds and _has_object(change, can):
            extras = tuple(extra for extra in change.extras if _EXTRAS[extra] in usable)
            changes.append(_variant(change, extras, limits, can))
    plain = tuple(kind for kind in PLAIN if kind in kinds)
    if plain:
        one_of_those: Any = Literal[plain]
        changes.append(create_model("plain", __base__=Plain, __doc__="", kind=(one_of_those, ...)))
    waits = create_model("wait", __base__=Wait, __doc__=Wait.__doc__)
    if not changes:
        return (waits,)
    one_of: Any = changes[0] if len(changes) == 1 else reduce(or_, changes)
    chosen = Field(discriminator="kind") if len(changes) > 1 else Field()
    offered = create_model(
        "propose", __base__=Propose, __doc__=Propose.__doc__, change=(one_of, chosen)
    )
    return (offered, waits)


def _has_object(change: type[Change], can: Capabilities) -> bool:
    if change is Knob:
        return bool(can.knobs)
    return bool(can.actions) if change is Call else True


def _variant(
    change: type[Change], extras: tuple[type[BaseModel], ...], limits: Limits, can: Capabilities
) -> Any:
    """The change with its extras and the policy's bounds; its own fields come first."""
    parts = (*extras, change)
    bounded = _bounded({k: v for part in parts for k, v in part.model_fields.items()}, limits)
    names = tuple(n for n in get_args(OptimizerSetting) if f"optimizer.{n}" in can.settings)
    if change is Optimizer and names:
        bounded["name"] = (Literal[names], ...)
        bounded["value"] = (reduce(or_, (_VALUES[n] for n in names)) | Literal["schedule"], ...)
    return create_model(change.needs, __base__=parts, __doc__=change.told, **bounded)


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
