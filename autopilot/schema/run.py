"""What a run says about itself: identity, capabilities, checkpoints, journal events."""

from typing import Any, Literal

from pydantic import Field

from autopilot.schema.base import Number, Record
from autopilot.schema.guidance import Guidance
from autopilot.schema.interventions import Scalar
from autopilot.schema.signals import MAIN

SCHEMA_VERSION = 1
"""Version of the wire and of the journal; a journal of a newer one is refused, never guessed at."""

RunStatus = Literal["running", "held", "paused", "ended", "failed"]


class Setting(Record):
    """A value that interventions can change, with its hard bounds."""

    name: str
    value: Scalar | Number | None
    default: Scalar | Number | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Scalar, ...] | None = None
    type: Literal["bool", "int", "float", "str", "pair"] = "float"
    description: str = ""


class ModuleInfo(Record):
    """A part of the model that interventions can address.

    Attributes:
        type: Its class.
        parameters: Numbers in its parameters, those of its parts included.
        trained: How many of them the optimizer can move.
        resettable: Its parameters can be drawn anew.
        settings: What can be set in it, with the value in force and the bounds.
    """

    type: str
    parameters: int
    trained: int
    resettable: bool = False
    settings: dict[str, Setting] = Field(default_factory=dict)


class Capabilities(Record):
    """What this run truly supports; nothing else is offered or accepted.

    Attributes:
        interventions: The kinds that can be applied to this run.
        settings: Values in force by name: ``lr`` (of the first group), ``lr_plan`` (what is planned
            for it without any intervention), ``lr_scheduled`` (what the scheduler says),
            ``lr_factor_min`` and ``lr_factor_max`` (in force over plan, over the groups),
            ``grad_clip``, ``optimizer.groups`` and each hyperparameter ``optimizer.NAME``;
            ``accumulation`` where the loop accumulates as the session says.
        knobs: The script's own controls, by name.
        actions: The script's own functions: name to the names and types of its arguments.
        modules: Parts of the model, by name.
        frozen: Names of those that an intervention froze.
        branches: Every branch, each with the newest state of it that is held; None where there is
            none, or where it is the branch that the run is on.
    """

    interventions: tuple[str, ...] = ()
    settings: dict[str, Setting] = Field(default_factory=dict)
    knobs: dict[str, Setting] = Field(default_factory=dict)
    actions: dict[str, dict[str, str]] = Field(default_factory=dict)
    modules: dict[str, ModuleInfo] = Field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    branches: dict[str, str | None] = Field(default_factory=dict)
    lr_plan_declared: bool = False


class CheckpointInfo(Record):
    """A state of the run one can go back to.

    Attributes:
        kind: ``snapshot`` lives in the process's memory, ``durable`` on disk.
        good: True once enough healthy steps followed it and no episode reaches back before it.
        pinned: Kept because an undo needs it.
    """

    id: str
    step: int
    branch: str
    kind: Literal["snapshot", "durable"]
    good: bool
    pinned: bool = False
    cursor: int = 0
    bytes: int = 0
    path: str | None = None
    tag: str | None = None


class PilotState(Record):
    """What the run knows of its pilot."""

    actor: str
    last_pass: float
    seen_seq: int
    alive: bool


class RunInfo(Record):
    """Identity and present state of a run.

    Attributes:
        guidance: What operators told its agents and have not withdrawn, oldest first.
        llm_usd_per_day: Dollars that the policy lets agents spend on language models in 24 hours.
        llm_usd_spent: What they spent in the last 24 hours, as far as prices are known.
        no_proposals: How often its agents answered without a proposal, by kind.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    run_id: str
    status: RunStatus
    step: int
    steps: int | None = None
    branch: str = MAIN
    state_version: int
    seq: int
    started: float
    capabilities: Capabilities
    policy_digest: str
    autonomy: Literal["observe", "suggest", "act"]
    breaker_open: bool = False
    llm_usd_per_day: float = 0.0
    llm_usd_spent: float = 0.0
    no_proposals: dict[str, int] = Field(default_factory=dict)
    pilot: PilotState | None = None
    guidance: tuple[Guidance, ...] = ()
    last_values: dict[str, Number] = Field(default_factory=dict)
    faults: tuple[str, ...] = ()


EventKind = Literal[
    "run_started",
    "run_ended",
    "capabilities",
    "branch",
    "rows_sealed",
    "finding",
    "episode",
    "proposal",
    "no_proposal",
    "consultation",
    "approval",
    "guidance",
    "applied",
    "rejected",
    "receipt",
    "canary",
    "status",
    "reflex",
    "checkpoint",
    "evaluation",
    "heartbeat_lost",
    "heartbeat",
    "note",
    "breaker",
    "fault",
]


class Event(Record):
    """One entry of the journal: append-only, each bound to the one before it by its hash."""

    seq: int
    time: float
    step: int
    branch: str
    kind: EventKind
    actor: str
    body: dict[str, Any]
    hash: str = ""
