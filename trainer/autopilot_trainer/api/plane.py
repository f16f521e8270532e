"""What the API needs of a control plane."""

from collections.abc import Sequence
from typing import Literal, Protocol

from autopilot.schema import (
    CheckpointInfo,
    Consultation,
    Episode,
    Event,
    Finding,
    Guidance,
    Intervention,
    NoProposal,
    Proposal,
    ProposalRecord,
    Row,
    RunInfo,
)
from autopilot_trainer.auth import Role

Decision = Literal["approve", "modify", "deny"]


class Plane(Protocol):
    """The control plane as the API sees it. Every method may be called from any thread."""

    def info(self) -> RunInfo: ...

    def rows(
        self,
        *,
        last: int = 512,
        branch: str | None = None,
        names: Sequence[str] | None = None,
        from_step: int | None = None,
    ) -> Sequence[Row]: ...

    def series(
        self, names: Sequence[str], branch: str | None, points: int
    ) -> dict[str, list[tuple[int, float]]]: ...

    def events(self, after: int, *, wait: float = 0.0, limit: int = 1000) -> Sequence[Event]:
        """Events after that one; waits up to ``wait`` seconds for the first."""
        ...

    def episodes(self, *, closed: bool = False) -> Sequence[Episode]: ...

    def findings(self, episode: str | None = None) -> Sequence[Finding]: ...

    def checkpoints(self) -> Sequence[CheckpointInfo]: ...

    def policy_text(self) -> str: ...

    def propose(self, proposal: Proposal, *, actor: str, key: str) -> ProposalRecord: ...

    def proposals(self, status: str | None = None) -> Sequence[ProposalRecord]: ...

    def proposal(self, proposal_id: str) -> ProposalRecord: ...

    def decide(
        self,
        proposal_id: str,
        decision: Decision,
        *,
        actor: str,
        digest: str,
        reason: str = "",
        interventions: tuple[Intervention, ...] | None = None,
    ) -> ProposalRecord: ...

    def command(
        self,
        interventions: tuple[Intervention, ...],
        *,
        actor: str,
        key: str,
        rationale: str = "",
        force: bool = False,
    ) -> ProposalRecord: ...

    def revert(self, proposal_id: str, *, actor: str, role: Role) -> ProposalRecord: ...

    def confirm(self, proposal_id: str, *, actor: str) -> ProposalRecord: ...

    def claim(self, finding: Finding, *, actor: str) -> Finding: ...

    def heartbeat(
        self,
        *,
        actor: str,
        seen_seq: int,
        no_proposal: NoProposal | None,
        consultations: Sequence[Consultation],
    ) -> None: ...

    def tell(self, text: str, *, actor: str) -> Guidance: ...

    def withdraw(self, guidance_id: str, *, actor: str) -> Guidance: ...

    def reset_breaker(self, *, actor: str) -> None: ...

    def fault(self, message: str) -> None:
        """Takes note of a fault in the machinery around the run."""
        ...
