"""What clients read of a run: its state, rows, events, findings, proposals."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from threading import Condition, RLock

from autopilot.control.core import Core
from autopilot.control.guidance import Advice
from autopilot.control.pilots import Pilots
from autopilot.schema import (
    CheckpointInfo,
    Episode,
    Event,
    Finding,
    ProposalRecord,
    Row,
    RunInfo,
)


class Readings(ABC):
    """The reading half of a control plane; every call is thread-safe and changes nothing.

    Attributes:
        steps: After which the run is to end; None where that is not known.
    """

    steps: int | None
    _lock: RLock
    _changed: Condition
    _core: Core
    _pilots: Pilots
    _advice: Advice
    _policy_text: str
    _started: float

    @abstractmethod
    def _drain(self) -> None:
        """Read the rows that came in."""

    def info(self) -> RunInfo:
        """Identity and present state."""
        with self._lock:
            core, here = self._core, self._core.observation
            return RunInfo(
                name=core.recorder.journal.name,
                run_id=core.recorder.journal.run_id,
                status=core.status,
                step=here.step,
                steps=self.steps,
                branch=here.branch,
                state_version=core.state_version,
                seq=core.recorder.last_seq,
                started=self._started,
                capabilities=core.side.capabilities(),
                policy_digest=core.policy.digest(),
                autonomy=core.policy.autonomy,
                breaker_open=core.breaker_open,
                llm_usd_per_day=core.policy.budget.llm_usd.per_day,
                llm_usd_spent=core.ledger.llm_usd(core.clock.now()),
                no_proposals=dict(self._pilots.no_proposals),
                pilot=self._pilots.latest(),
                guidance=self._advice.in_force(),
                last_values=here.last_values(),
                faults=tuple(core.recorder.faults[-20:]),
            )

    def rows(
        self,
        *,
        last: int = 512,
        branch: str | None = None,
        names: Sequence[str] | None = None,
        from_step: int | None = None,
    ) -> list[Row]:
        """The last rows of a branch and its ancestors, in order."""
        with self._lock:
            self._drain()
            where = branch or self._core.observation.branch
            found = self._core.recorder.journal.rows(where, last=last, from_step=from_step)
        if names is None:
            return found
        wanted = set(names)
        return [
            row._replace(values={k: v for k, v in row.values.items() if k in wanted})
            for row in found
        ]

    def series(
        self, names: Sequence[str], branch: str | None, points: int
    ) -> dict[str, list[tuple[int, float]]]:
        """Series of a branch and its ancestors, downsampled so that peaks stay."""
        with self._lock:
            where = branch or self._core.observation.branch
            journal = self._core.recorder.journal
            return {name: journal.series(name, where, points) for name in names}

    def events(self, after: int, *, wait: float = 0.0, limit: int = 1000) -> list[Event]:
        """Journal events after a sequence number; waits up to ``wait`` seconds for one."""
        deadline = time.monotonic() + wait
        with self._lock:
            while self._core.recorder.last_seq <= after:
                left = deadline - time.monotonic()
                if left <= 0:
                    return []
                self._changed.wait(left)
            return self._core.recorder.events(after, limit)

    def episodes(self, *, closed: bool = False) -> list[Episode]:
        """Episodes that are open, or all."""
        with self._lock:
            here = self._core.observation
            return list(here.episodes.values()) if closed else here.open_episodes()

    def findings(self, episode: str | None = None) -> list[Finding]:
        """Findings of one episode, or all that are held."""
        with self._lock:
            return self._core.observation.of_episode(episode)

    def checkpoints(self) -> list[CheckpointInfo]:
        """States one can go back to, oldest first, each marked good or not."""
        with self._lock:
            return list(self._core.checkpoints())

    def policy_text(self) -> str:
        """The policy as it was written."""
        return self._policy_text

    def proposals(self, status: str | None = None) -> list[ProposalRecord]:
        """Proposals, oldest first."""
        with self._lock:
            return self._core.ledger.all(status)

    def proposal(self, proposal_id: str) -> ProposalRecord:
        """One proposal with everything that became of it."""
        with self._lock:
            return self._core.ledger.get(proposal_id)
