"""A session and a pilot in lock-step: after every step the pilot has looked before the next begins.

A live pilot is another process, and how many steps pass before it answers depends on the machine.
Here the same loop looks at the same control plane, in the training thread and without a socket, so
the same seed gives the same flight. What it waits for its agent costs the training no step, as with
a policy that holds on an alarm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from autopilot.control import ControlPlane
from autopilot.loop import Autopilot
from autopilot.schema import (
    CheckpointInfo,
    Episode,
    Event,
    Finding,
    NoProposal,
    Proposal,
    ProposalRecord,
    Row,
    RunInfo,
)
from autopilot_evals.replay import RETRY_STEPS
from autopilot_trainer import Session


class LockstepSession(Session):
    """A session without a control API and without a thread of its own.

    The loop calls ``plane.tick()`` after every step; nothing depends on the clock but what the run
    reports of its speed.
    """

    @property
    def plane(self) -> ControlPlane:
        """The run's control plane."""
        return self._training.plane

    def __enter__(self) -> Self:
        super().__enter__()
        assert self._thread is not None, "entering a session starts its control thread"
        self._thread.stop()
        return self

    def _serve(self, plane: ControlPlane) -> None:
        self._directory.publish(None)


@dataclass(frozen=True)
class PlaneRun:
    """The ``Run`` port straight onto a control plane of this process.

    Args:
        plane: The run's.
        actor: Who pilots, as in ``agent:rules``.
    """

    plane: ControlPlane
    actor: str

    def info(self) -> RunInfo:
        """Identity and present state."""
        return self.plane.info()

    def rows(self, *, last: int = 512, branch: str | None = None) -> Sequence[Row]:
        """The last rows of a branch and its ancestors, in order."""
        return self.plane.rows(last=last, branch=branch)

    def events(self, after: int, *, wait: float = 0.0) -> Sequence[Event]:
        """Journal events after that sequence number; nothing comes of waiting."""
        return self.plane.events(after)

    def episodes(self) -> Sequence[Episode]:
        """Episodes that are not closed."""
        return self.plane.episodes()

    def findings(self, episode: str) -> Sequence[Finding]:
        """Findings of one episode."""
        return self.plane.findings(episode)

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        """States one can go back to."""
        return self.plane.checkpoints()

    def proposals(self, status: str | None = None) -> Sequence[ProposalRecord]:
        """Everything proposed in this run."""
        return self.plane.proposals(status)

    def proposal(self, proposal_id: str) -> ProposalRecord:
        """One proposal with everything that became of it."""
        return self.plane.proposal(proposal_id)

    def propose(self, proposal: Proposal, *, key: str) -> ProposalRecord:
        """File a proposal: judged, and applied at the coming boundary where it is allowed."""
        return self.plane.propose(proposal, actor=self.actor, key=key)

    def heartbeat(self, seen_seq: int, no_proposal: NoProposal | None = None) -> None:
        """Say that everything up to that event was looked at."""
        self.plane.heartbeat(actor=self.actor, seen_seq=seen_seq, no_proposal=no_proposal)


class _Asked(Protocol):
    step: int


class Lockstep(Autopilot):
    """The pilot's loop without a clock: an agent that waits is asked again after some steps."""

    def _waited(self, last: _Asked) -> bool:
        return abs(self.run.info().step - last.step) >= RETRY_STEPS
