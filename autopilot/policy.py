"""The policy file: what may be done to a run, by whom, how often, and who is asked.

TOML, validated; an unknown key is an error. :data:`DEFAULT_POLICY` is the text of the policy that
holds where the user wrote none.
"""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from autopilot.errors import BadPolicy
from autopilot.schema import INTERVENTION_TYPES, Diagnosis, Record

DEFAULT_POLICY = """\
# What an autopilot may do to this run. `autopilot policy check FILE` explains it.
autonomy = "act"                  # observe (decide nothing) < suggest (everything asks) < act
default = "ask"                   # where no rule matches

[limits]                          # hard bounds, for every actor; a person may force past them
lr = { min = 1e-9, max_factor = 4.0, total_factor = [0.02, 16.0] }
grad_clip = { min = 0.05 }

[budget]
interventions = { per_1000_steps = 6, per_day = 20 }
rollbacks = { per_day = 3 }
skipped_batches = { per_day = 2000 }
llm_usd = { per_day = 5.0 }

[cooldown]
steps = 100                       # between interventions for different episodes
same_episode = 5                  # between the rungs of one episode's remedy
quiet = ["evaluation", "checkpoint"]  # phases in which nothing is accepted; also: "warmup"

[[rules]]
name = "a misdriven setting back to its plan or default"
kinds = ["set_lr", "set_optimizer", "set_knob", "scale_lr", "rewarm_lr", "reset_optimizer_state"]
where = { alarm = true, diagnosis = "misdriven", evidence_verified = true }
verdict = "allow"

[[rules]]
name = "back to a good state with the cause fixed, where weights are damaged"
kinds = ["rollback", "set_lr", "scale_lr", "rewarm_lr", "set_grad_clip", "skip_batches"]
verdict = "allow"
[rules.where]
alarm = true
diagnosis = "damaged"
evidence_verified = true
target = "good"
steps_back_max = 2000

[[rules]]
name = "what changes nothing"
kinds = ["note", "evaluate", "save_checkpoint"]
verdict = "allow"

[[rules]]
name = "what ends or halts a run needs a person"
kinds = ["stop", "pause", "call_action"]
verdict = "ask"

[[rules]]
name = "what rewrites a model or leaves its course needs a person"
kinds = ["set_module", "reset_module", "freeze", "unfreeze", "set_batch", "branch", "switch_branch"]
verdict = "ask"

[approval]
ttl = "15m"
on_expiry = "hold"                # nothing | hold (pause, checkpointed) | allow_reversible

[canary]
steps = 200
revert_if = "worse"               # worse | never; a revert needs no approval

[breaker]
failed_canaries = 2               # then: suggest only, until a person resets it

[reflexes]                        # in the step itself, without anybody
skip_non_finite = true            # an update whose gradients are not finite
skip_spike_factor = 100.0         # an update whose gradient norm is so many medians; 0: off
max_skips_in_a_row = 3            # of spikes; then the update is let through
hold_on_alarm = "10s"             # wait at the boundary for a living pilot's decision; "0s": off

[pilot]
lease = "30s"                     # without a heartbeat for so long, the pilot counts as dead
"""

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        match = _DURATION.match(value)
        if not match:
            raise ValueError("expected a duration such as '90s', '15m' or '2h'")
        return float(match[1]) * _SECONDS[match[2]]
    return value


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
"""Seconds, written as '500ms', '90s', '15m', '2h' or '1d'."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


Phase = Literal["warmup", "evaluation", "checkpoint"]
"""``warmup`` is a re-warm-up that an intervention put in force."""


class LearningRateLimits(Record):
    """Bounds on the learning rate in force.

    Attributes:
        min: No intervention takes it below this.
        max_factor: No single proposal raises it more than this many times.
        total_factor: Over what is planned for the step, all interventions together.
    """

    min: Positive = 1e-9
    max_factor: Positive = 4.0
    total_factor: tuple[Positive, Positive] = (0.02, 16.0)

    @model_validator(mode="after")
    def _ordered(self) -> "LearningRateLimits":
        low, high = self.total_factor
        if not low <= 1 <= high:
            raise ValueError("total_factor must contain 1, as in [0.05, 4.0]")
        return self


class GradClipLimits(Record):
    """Bounds on gradient clipping."""

    min: Positive = 0.05


class Limits(Record):
    """Hard bounds on values, for every actor."""

    lr: LearningRateLimits = LearningRateLimits()
    grad_clip: GradClipLimits = GradClipLimits()


class InterventionBudget(Record):
    """How often an agent may intervene."""

    per_1000_steps: Count = 6
    per_day: Count = 20


class PerDay(Record):
    """A number a day."""

    per_day: Count


class MoneyPerDay(Record):
    """Dollars a day."""

    per_day: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Budget(Record):
    """Ledgers; each counts on its own, and the tightest one decides."""

    interventions: InterventionBudget = InterventionBudget()
    rollbacks: PerDay = PerDay(per_day=3)
    skipped_batches: PerDay = PerDay(per_day=2000)
    llm_usd: MoneyPerDay = MoneyPerDay(per_day=5.0)


class Cooldown(Record):
    """How many steps must pass after an applied intervention before the next.

    Attributes:
        steps: For another episode.
        same_episode: For the next rung of the remedy of the same episode.
        quiet: Phases of the run in which an agent's proposals are refused.
    """

    steps: Count = 100
    same_episode: Count = 5
    quiet: tuple[Phase, ...] = ("evaluation", "checkpoint")


class Where(Record):
    """Facts of the run, not of the proposal's text, that a rule asks for.

    Attributes:
        alarm: The run's own detectors raised an alarm that the proposal answers.
        invariant_broken: They found an invariant broken.
        diagnosis: What triage concluded.
        damaged: Short for ``diagnosis = "damaged"``.
        evidence_verified: Every figure cited stands in the journal.
        target: What a rollback goes back to.
        steps_back_max: How far back it may go.
        actor: Who proposes, as a prefix of ``agent:NAME``.
    """

    alarm: bool | None = None
    invariant_broken: bool | None = None
    diagnosis: Diagnosis | None = None
    damaged: bool | None = None
    evidence_verified: bool | None = None
    target: Literal["good", "any"] | None = None
    steps_back_max: Count | None = None
    actor: str | None = None


class Rule(Record):
    """One rule: kinds of intervention, the facts it asks for, and its verdict."""

    name: str = Field(min_length=1, max_length=200)
    kinds: tuple[str, ...] = Field(min_length=1)
    where: Where = Where()
    verdict: Literal["allow", "ask", "deny"]

    @model_validator(mode="after")
    def _known_kinds(self) -> "Rule":
        unknown = [kind for kind in self.kinds if kind not in INTERVENTION_TYPES and kind != "*"]
        if unknown:
            known = ", ".join(INTERVENTION_TYPES)
            raise ValueError(f"no such intervention: {', '.join(unknown)}; known: {known}, or '*'")
        return self


class ApprovalTerms(Record):
    """How long a question waits for a person, and what happens when nobody answers."""

    ttl: Duration = 900.0
    on_expiry: Literal["nothing", "hold", "allow_reversible"] = "hold"


class CanaryTerms(Record):
    """The success test of an intervention that brings none of its own."""

    steps: Annotated[int, Field(ge=1)] = 200
    revert_if: Literal["worse", "never"] = "worse"


class Breaker(Record):
    """After so many failed canaries every proposal asks, until a person resets it."""

    failed_canaries: Annotated[int, Field(ge=1)] = 2


class Reflexes(Record):
    """What the step does by itself."""

    skip_non_finite: bool = True
    skip_spike_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 100.0
    max_skips_in_a_row: Count = 3
    hold_on_alarm: Duration = 10.0


class PilotTerms(Record):
    """When a silent pilot counts as dead."""

    lease: Duration = 30.0


class Policy(Record):
    """A validated policy."""

    autonomy: Literal["observe", "suggest", "act"] = "act"
    default: Literal["allow", "ask", "deny"] = "ask"
    limits: Limits = Limits()
    budget: Budget = Budget()
    cooldown: Cooldown = Cooldown()
    rules: tuple[Rule, ...] = ()
    approval: ApprovalTerms = ApprovalTerms()
    canary: CanaryTerms = CanaryTerms()
    breaker: Breaker = Breaker()
    reflexes: Reflexes = Reflexes()
    pilot: PilotTerms = PilotTerms()

    def digest(self) -> str:
        """Short SHA-256 of what the policy says, whatever its layout and comments."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def parse_policy(text: str, *, origin: str = "policy") -> Policy:
    """Read a policy from TOML.

    Raises:
        BadPolicy: One line that names the place, the value and what was expected.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadPolicy(f"{origin}: not valid TOML: {error}") from error
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise BadPolicy(f"{origin}: {_first_problem(error)}") from error


def read_policy(path: str | Path | None) -> Policy:
    """Read a policy file; None gives the default policy.

    Raises:
        BadPolicy: The file cannot be read, or does not say what a policy may say.
    """
    if path is None:
        return parse_policy(DEFAULT_POLICY, origin="default policy")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadPolicy(f"{path}: cannot be read as a policy file: {reason}") from error
    return parse_policy(text, origin=str(path))


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"]) or "the file"
    if problem["type"] == "extra_forbidden":
        return f"{place}: no such key (see `autopilot policy init` for all of them)"
    message = problem["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    value = problem.get("input")
    shown = f" (it says {value!r})" if isinstance(value, str | int | float | bool) else ""
    return f"{place}: {message}{shown}{more}"
