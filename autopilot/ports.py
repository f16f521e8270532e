"""The seams of the system: what the loop, the detectors and the people plug into."""

import time
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from autopilot.schema import (
    CheckpointInfo,
    Consultation,
    Episode,
    Event,
    Finding,
    NoProposal,
    Proposal,
    ProposalRecord,
    Row,
    RunInfo,
    Window,
)


class Clock(Protocol):
    """Where the time comes from, so that replay and tests can set it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()


class Detector(Protocol):
    """Reads the rows of one branch in order and reports what is wrong.

    ``update`` is O(1) amortised. A non-finite value or a spike never enters a baseline. ``reset``
    forgets the baseline: a branch began, or an intervention changed the run.
    """

    name: str
    metrics: tuple[str, ...]

    def update(self, row: Row) -> Finding | None: ...

    def reset(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Run(Protocol):
    """A run as the pilot sees it: live over HTTP, or a recording."""

    def info(self) -> RunInfo: ...

    def rows(self, *, last: int = 512, branch: str | None = None) -> Sequence[Row]:
        """The last rows of a branch and its ancestors (None: the branch in force), in order."""
        ...

    def events(self, after: int, *, wait: float = 0.0) -> Sequence[Event]:
        """Journal events after that sequence number; waits up to ``wait`` seconds for one."""
        ...

    def episodes(self) -> Sequence[Episode]:
        """Episodes that are not closed."""
        ...

    def findings(self, episode: str) -> Sequence[Finding]: ...

    def checkpoints(self) -> Sequence[CheckpointInfo]: ...

    def proposals(self, status: str | None = None) -> Sequence[ProposalRecord]: ...

    def proposal(self, proposal_id: str) -> ProposalRecord: ...

    def propose(self, proposal: Proposal, *, key: str) -> ProposalRecord:
        """File a proposal; the same key again gives the same answer."""
        ...

    def heartbeat(
        self,
        seen_seq: int,
        no_proposal: NoProposal | None = None,
        consultations: Sequence[Consultation] = (),
    ) -> None:
        """Say that everything up to that event was looked at, and what models were asked."""
        ...


class Agent(Protocol):
    """Turns what it is shown into one proposal, or says why not."""

    name: str

    def propose(self, window: Window) -> Proposal | NoProposal: ...


@runtime_checkable
class Consulting(Agent, Protocol):
    """An agent that asks a language model, and so takes seconds, costs money, and can explain.

    It may be called from any thread, once at a time.

    Attributes:
        model: Which model, as its vendor calls it.
        prompt_sha: Digest of the prompts that it is asked with.
    """

    model: str
    prompt_sha: str

    def known(self, window: Window) -> Proposal | NoProposal | None:
        """The answer where no model is needed for it; None where one has to be asked."""
        ...

    def review(self, record: ProposalRecord, window: Window) -> Consultation:
        """Explain a proposal to the person who is to decide; never raises."""
        ...

    def consultations(self) -> Sequence[Consultation]:
        """What models were asked since the last call, reviews included."""
        ...


class Approver(Protocol):
    """Takes proposals that the policy asks about to a person.

    ``offer`` returns at once; the person's answer goes to the run by itself.
    """

    def offer(self, record: ProposalRecord, window: Window) -> None: ...

    def advise(self, proposal_id: str, review: Consultation) -> None:
        """Show what a model has to say of a proposal that was offered."""
        ...

    def withdraw(self, proposal_id: str, reason: str) -> None:
        """The proposal was settled elsewhere or expired."""
        ...
