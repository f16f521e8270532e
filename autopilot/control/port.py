"""The ``Run`` port straight onto a control plane of this process, without a wire between."""

from collections.abc import Sequence

from autopilot.control.plane import ControlPlane
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
)


class PlaneRun:
    """A run as its pilot sees it, where both live in one process.

    Args:
        plane: The run's.
        actor: Who pilots, as in ``agent:rules``.
    """

    def __init__(self, plane: ControlPlane, actor: str) -> None:
        self._plane = plane
        self._actor = actor

    def info(self) -> RunInfo:
        """Identity and present state."""
        return self._plane.info()

    def rows(self, *, last: int = 512, branch: str | None = None) -> Sequence[Row]:
        """The last rows of a branch and its ancestors (None: the branch in force), in order."""
        return self._plane.rows(last=last, branch=branch)

    def events(self, after: int, *, wait: float = 0.0) -> Sequence[Event]:
        """Journal events after that sequence number; nothing comes of waiting."""
        return self._plane.events(after)

    def episodes(self) -> Sequence[Episode]:
        """Episodes that are not closed."""
        return self._plane.episodes()

    def findings(self, episode: str) -> Sequence[Finding]:
        """Findings of one episode."""
        return self._plane.findings(episode)

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        """States the run can go back to."""
        return self._plane.checkpoints()

    def proposals(self, status: str | None = None) -> Sequence[ProposalRecord]:
        """Everything proposed in this run, of one status where one is named."""
        return self._plane.proposals(status)

    def proposal(self, proposal_id: str) -> ProposalRecord:
        """One proposal with everything that became of it."""
        return self._plane.proposal(proposal_id)

    def propose(self, proposal: Proposal, *, key: str) -> ProposalRecord:
        """File a proposal: judged, and applied at the coming boundary where it is allowed."""
        return self._plane.propose(proposal, actor=self._actor, key=key)

    def heartbeat(
        self,
        seen_seq: int,
        no_proposal: NoProposal | None = None,
        consultations: Sequence[Consultation] = (),
    ) -> None:
        """Say that everything up to that event was looked at, and what models were asked."""
        self._plane.heartbeat(
            actor=self._actor,
            seen_seq=seen_seq,
            no_proposal=no_proposal,
            consultations=consultations,
        )
