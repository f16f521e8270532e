"""What the parts of the control plane share: the facts of one run and the way to record them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from autopilot.control.health import Health
from autopilot.control.ledger import Ledger
from autopilot.control.observation import Observation
from autopilot.control.recorder import Recorder
from autopilot.policy import Policy
from autopilot.ports import Clock
from autopilot.schema import (
    Capabilities,
    CheckpointInfo,
    Episode,
    EventKind,
    PilotState,
    ProposalRecord,
    RunStatus,
)

SYSTEM = "system"
"""The actor of what the control plane does by itself: reverts, holds, expiries."""


class TrainingSide(Protocol):
    """What the control plane asks of the training process; called from any thread."""

    def capabilities(self) -> Capabilities: ...

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        """States one can go back to; the control plane fills in which are good."""
        ...

    def phases(self) -> frozenset[str]:
        """Phases the run is in that a policy may call quiet."""
        ...

    def in_force(self) -> dict[str, Any] | None:
        """What interventions have put in force, complete enough to go on with after a crash.

        JSON-able; None where the side keeps no such thing.
        """
        ...


@dataclass
class Core:
    """One run's facts. Guarded by the control plane's lock.

    Attributes:
        pilots: Who pilots, by actor; several may, as an observer beside the one that acts.
        over: No step will come any more at which anything could be applied.
        forced: Queued commands for which a person confirmed to go past the policy's limits.
    """

    policy: Policy
    clock: Clock
    recorder: Recorder
    observation: Observation
    side: TrainingSide
    ledger: Ledger = field(default_factory=Ledger)
    health: Health = field(default_factory=Health)
    queue: deque[str] = field(default_factory=deque)
    status: RunStatus = "running"
    over: bool = False
    state_version: int = 0
    failed_canaries: int = 0
    pilots: dict[str, PilotState] = field(default_factory=dict)
    forced: set[str] = field(default_factory=set)

    @property
    def breaker_open(self) -> bool:
        """Too many interventions made things worse; every proposal asks."""
        return self.failed_canaries >= self.policy.breaker.failed_canaries

    def write(self, kind: EventKind, actor: str, body: dict[str, Any]) -> None:
        """Journal an event at the present step."""
        here = self.observation
        self.recorder.write(kind, actor, body, step=here.step, branch=here.branch)

    def write_record(
        self, kind: EventKind, record: ProposalRecord, *, actor: str, **more: Any
    ) -> None:
        """Journal a proposal as it now stands; the ledger is rebuilt from these.

        Args:
            kind: What became of it.
            record: It.
            actor: Who brought that about.
            **more: What else the event says, where it says anything: the client's ``key``, what
                is ``in_force``.
        """
        said = {name: value for name, value in more.items() if value is not None}
        self.write(kind, actor, {"record": record.model_dump(mode="json"), **said})

    def note_episode(self, episode: Episode) -> None:
        """An episode began or changed."""
        self.health.note_episode(episode)
        self.write("episode", SYSTEM, {"episode": episode.model_dump(mode="json")})

    def checkpoints(self) -> tuple[CheckpointInfo, ...]:
        """The states one can go back to, oldest first, each marked good or not."""
        here = self.observation
        return self.health.mark(self.side.checkpoints(), here.course(), here.step)

    def enqueue(self, record: ProposalRecord) -> None:
        """Put an allowed proposal on its way to the next boundary."""
        self.queue.append(record.id)

    def is_alive(self, pilot: PilotState) -> bool:
        """The pilot's last heartbeat is within its lease."""
        return self.clock.now() - pilot.last_pass <= self.policy.pilot.lease

    def living_pilots(self) -> list[PilotState]:
        """Those that piloted within their lease."""
        return [pilot for pilot in self.pilots.values() if self.is_alive(pilot)]
