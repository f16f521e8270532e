"""From a proposal to its outcome: verdict, approval, command, receipt, canary."""

import hashlib
from typing import Literal

from pydantic import Field

from autopilot.schema.base import Number, Record
from autopilot.schema.interventions import Intervention, Scalar
from autopilot.schema.signals import Evidence, FindingKind


class Canary(Record):
    """The success test of an intervention, fixed before acting.

    After ``steps`` steps the median of ``metric`` over the last fifth of them must not exceed
    ``bound``. Without a bound the control plane fixes one before the intervention is applied: what
    the metric was before, plus three robust deviations. A non-finite value fails at once.
    """

    metric: str = "loss"
    steps: int = Field(default=200, ge=1)
    bound: float | None = Field(default=None, allow_inf_nan=False)


class Proposal(Record):
    """One or more interventions, applied atomically in order, and why.

    The actor is not part of it: the control plane derives that from the token.

    Attributes:
        cause: The finding kind that this proposal answers.
        evidence: Figures it rests on; each must be found in the journal.
        canary: The success test; None takes the policy's.
        not_after_step: Refused once the run has gone past this step.
        state_version: The version of the run's state that it was made against.
        lease_steps: Undone after so many steps unless somebody confirms it before.
    """

    interventions: tuple[Intervention, ...] = Field(min_length=1, max_length=8)
    episode: str | None = None
    cause: FindingKind | None = None
    rationale: str = Field(default="", max_length=4000)
    evidence: tuple[Evidence, ...] = Field(default=(), max_length=32)
    expected_effect: str = Field(default="", max_length=1000)
    canary: Canary | None = None
    not_after_step: int | None = Field(default=None, ge=0)
    state_version: int | None = Field(default=None, ge=0)
    lease_steps: int | None = Field(default=None, ge=1)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON: what an approval is bound to."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


NoProposalKind = Literal[
    "benign",  # nothing is wrong
    "waiting",  # not yet
    "cannot_tell",  # the figures do not say what is wrong
    "exhausted",  # everything it knows was tried, or a person said no
    "unsupported",  # the run does not offer what would help
    "fault",  # the agent itself failed
    "transient",  # a model did not answer in time, or its server was busy or down
    "fatal",  # a model cannot be asked at all: key, name, request
    "protocol",  # a model's server answered something that is no answer
    "invalid",  # a model's answer stayed unusable after every repair
    "refused",  # a model would not answer
    "budget",  # the policy's money for models is spent, or a price is unknown
    "turns_differ",  # a replay would ask a model something else than what was recorded
]
"""Why an agent does not act. Every kind means the same to the run: nothing happens."""


class NoProposal(Record):
    """An agent looked at an episode and does not act.

    Attributes:
        kind: Why, in one of a few words, so that it can be counted.
        reason: What it would need to know, or why waiting is right.
    """

    kind: NoProposalKind
    reason: str
    episode: str | None = None


class Verdict(Record):
    """The guard's judgement, with the rule that decided and a reason one can act on."""

    decision: Literal["allow", "ask", "deny"]
    rule: str
    reason: str


class Approval(Record):
    """What a person, or nobody, decided about a proposal that the policy asks about."""

    decision: Literal["approve", "modify", "deny", "expired"]
    actor: str
    at: float
    digest: str
    reason: str = ""
    modified: tuple[Intervention, ...] | None = None


class Change(Record):
    """One value that an intervention changed."""

    field: str
    old: Scalar | Number | None
    new: Scalar | Number | None


class ReadBack(Record):
    """One value read where it takes effect, after the intervention was applied."""

    step: int
    field: str
    expected: Scalar | Number | None
    value: Scalar | Number | None
    ok: bool


class Receipt(Record):
    """Proof that an intervention was applied.

    Attributes:
        step: The boundary at which it was applied: after this step, before the next.
        changes: Old and new value of each field, in the order applied.
        read_back: Values in force at the next step and after the scheduler's next step; empty
            until those steps have run.
        proven: Every read-back has run and agreed. None while they are outstanding.
        inverse: What undoes it; empty with ``no_inverse`` saying why where nothing can.
        undo_checkpoint: The snapshot taken just before, pinned against retention.
    """

    command: str
    step: int
    branch: str
    ranks: tuple[int, ...] = (0,)
    digests: tuple[str, ...] = ()
    changes: tuple[Change, ...]
    read_back: tuple[ReadBack, ...] = ()
    proven: bool | None = None
    inverse: tuple[Intervention, ...] = ()
    no_inverse: str | None = None
    undo_checkpoint: str | None = None
    results: dict[str, Scalar | Number] = Field(default_factory=dict)


class CanaryResult(Record):
    """How the success test ended."""

    metric: str
    bound: Number
    value: Number
    step: int
    result: Literal["kept", "reverted", "void"]
    reason: str


ProposalStatus = Literal[
    "pending",  # asked; waits for a person
    "denied",  # by the policy or by a person
    "expired",  # nobody answered, or the run moved past it
    "queued",  # allowed; waits for the next boundary
    "rejected",  # the run could not apply it; nothing was changed
    "applied",  # in force, under its canary
    "kept",  # its canary passed, or it was confirmed
    "reverted",  # undone
]


class ProposalRecord(Record):
    """A proposal and everything that became of it."""

    id: str
    proposal: Proposal
    actor: str
    digest: str
    filed_at: float
    filed_step: int
    status: ProposalStatus
    verdict: Verdict
    expires_at: float | None = None
    approval: Approval | None = None
    receipt: Receipt | None = None
    canary: Canary | None = None
    canary_result: CanaryResult | None = None
    reverts: str | None = None
    reason: str = ""


class Command(Record):
    """An allowed proposal on its way to the next step boundary."""

    id: str
    interventions: tuple[Intervention, ...]
    actor: str
    not_after_step: int | None = None
