"""The closed set of changes that anyone can ask of a run.

``match`` over :data:`Intervention` with ``assert_never``: adding one fails the type check until
every place that acts on interventions handles it.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter

from autopilot.schema.base import Record

Scalar = bool | int | float | str
Groups = tuple[Annotated[int, Field(ge=0)], ...] | None
OptimizerSetting = Literal[
    "betas", "eps", "weight_decay", "momentum", "alpha", "dampening", "nesterov", "amsgrad"
]
ModuleSetting = Literal["p", "dropout", "eps", "momentum", "negative_slope", "label_smoothing"]
ModuleName = Annotated[str, Field(min_length=1, max_length=300)]
"""A module of the model by its full name; only those that the run publishes are accepted."""


class ScaleLR(Record):
    """Multiply the learning rate in force, keeping the ratios between groups."""

    kind: Literal["scale_lr"] = "scale_lr"
    factor: float = Field(ge=0.001, le=1000, allow_inf_nan=False)
    groups: Groups = None


class SetLR(Record):
    """Set the first group's learning rate; the other groups keep their ratio to it.

    ``"schedule"`` hands the learning rate back to the loop's own scheduler, ``"plan"`` makes it
    follow the plan that the run declared (``Session(lr_plan=…)``), whatever the scheduler says.
    Both drop earlier scaling.
    """

    kind: Literal["set_lr"] = "set_lr"
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["plan", "schedule"]
    groups: Groups = None


class RewarmLR(Record):
    """Ramp the learning rate linearly from near zero to its value over so many steps.

    0 ends a re-warm-up that is under way.
    """

    kind: Literal["rewarm_lr"] = "rewarm_lr"
    steps: int = Field(ge=0, le=100_000)


class SetOptimizer(Record):
    """Set one hyperparameter of the optimizer.

    ``"schedule"`` hands it back to the optimizer's own groups and whatever schedules them.
    """

    kind: Literal["set_optimizer"] = "set_optimizer"
    name: OptimizerSetting
    value: (
        bool
        | Annotated[float, Field(ge=0, allow_inf_nan=False)]
        | tuple[float, float]
        | Literal["schedule"]
    )
    groups: Groups = None


class SetGradClip(Record):
    """Clip the global gradient norm to at most this; null switches the session's clipping off."""

    kind: Literal["set_grad_clip"] = "set_grad_clip"
    max_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None


class ResetOptimizerState(Record):
    """Zero the optimizer's running moments."""

    kind: Literal["reset_optimizer_state"] = "reset_optimizer_state"
    moments: Literal["first", "second", "all"] = "all"


class Rollback(Record):
    """Go back to a checkpoint or snapshot on a new branch, then leave out the next batches.

    Weights, optimizer, scheduler, RNG and data position go back. Settings that interventions put
    in force (learning-rate scale, clipping, optimizer hyperparameters, knobs) stay in force.
    """

    kind: Literal["rollback"] = "rollback"
    checkpoint: str = Field(default="last_good", min_length=1, max_length=100)
    skip_batches: int = Field(default=0, ge=0, le=1_000_000)


class SkipBatches(Record):
    """Leave out the next batches of the data stream."""

    kind: Literal["skip_batches"] = "skip_batches"
    count: int = Field(ge=1, le=1_000_000)


class SetModule(Record):
    """Set a number that one module of the model computes with: its dropout, its epsilon."""

    kind: Literal["set_module"] = "set_module"
    module: ModuleName
    name: ModuleSetting
    value: float = Field(ge=0, allow_inf_nan=False)


class ResetModule(Record):
    """Draw a module's parameters anew, with their moments in the optimizer zeroed."""

    kind: Literal["reset_module"] = "reset_module"
    module: ModuleName


class Freeze(Record):
    """Keep the optimizer from moving a module's parameters, by gradient, momentum or decay."""

    kind: Literal["freeze"] = "freeze"
    module: ModuleName


class Unfreeze(Record):
    """Let the optimizer move the parameters of a module again that was frozen by name."""

    kind: Literal["unfreeze"] = "unfreeze"
    module: ModuleName


class SetBatch(Record):
    """Make an update of so many micro-batches, from the next update on that is begun."""

    kind: Literal["set_batch"] = "set_batch"
    accumulation: int = Field(ge=1, le=65_536)


class StartBranch(Record):
    """Go on as a new branch of that name, from here or from a checkpoint.

    The branch that is left keeps its latest state and what is in force, to be switched back to.
    """

    kind: Literal["branch"] = "branch"
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$")
    checkpoint: str | None = Field(default=None, min_length=1, max_length=100)


class SwitchBranch(Record):
    """Go on from another branch's latest state, with what was in force on it.

    The course so far stays as it was recorded: what follows is a branch of that branch.
    """

    kind: Literal["switch_branch"] = "switch_branch"
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,79}$")


class Evaluate(Record):
    """Run the registered evaluation at the boundary."""

    kind: Literal["evaluate"] = "evaluate"


class SaveCheckpoint(Record):
    """Write a durable checkpoint at the boundary."""

    kind: Literal["save_checkpoint"] = "save_checkpoint"
    tag: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,40}$")


class Pause(Record):
    """Hold the run at the boundary until it is resumed."""

    kind: Literal["pause"] = "pause"


class Resume(Record):
    """Let a paused run go on."""

    kind: Literal["resume"] = "resume"


class Stop(Record):
    """End the training loop at the boundary."""

    kind: Literal["stop"] = "stop"
    save: bool = True


class SetKnob(Record):
    """Set a control that the training script registered with ``session.knob``."""

    kind: Literal["set_knob"] = "set_knob"
    name: str = Field(min_length=1, max_length=100)
    value: Scalar


class CallAction(Record):
    """Call a function that the training script registered with ``@session.action``."""

    kind: Literal["call_action"] = "call_action"
    name: str = Field(min_length=1, max_length=100)
    arguments: dict[str, Scalar] = Field(default_factory=dict)


class Note(Record):
    """Write a remark into the journal; changes nothing."""

    kind: Literal["note"] = "note"
    text: str = Field(min_length=1, max_length=4000)


Intervention = Annotated[
    ScaleLR
    | SetLR
    | RewarmLR
    | SetOptimizer
    | SetGradClip
    | ResetOptimizerState
    | Rollback
    | SkipBatches
    | SetModule
    | ResetModule
    | Freeze
    | Unfreeze
    | SetBatch
    | StartBranch
    | SwitchBranch
    | Evaluate
    | SaveCheckpoint
    | Pause
    | Resume
    | Stop
    | SetKnob
    | CallAction
    | Note,
    Field(discriminator="kind"),
]

INTERVENTION_TYPES: dict[str, type[Record]] = {
    cls.model_fields["kind"].default: cls for cls in get_args(get_args(Intervention)[0])
}
"""Every intervention class by its kind."""

intervention_adapter: TypeAdapter[Intervention] = TypeAdapter(Intervention)
