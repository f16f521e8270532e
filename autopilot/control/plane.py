"""The control plane: the one place where anything about a run is decided.

It lives in the training process but off the training thread. The training thread hands it rows
(:attr:`ControlPlane.observe`), takes commands at step boundaries (:meth:`ControlPlane.take`) and
hands back receipts. A control thread calls :meth:`ControlPlane.tick`. Clients come in through the
API. Every public method is thread-safe. In replay the same object is ticked by the recording.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, RLock
from typing import Any, Literal

from autopilot.control.core import SYSTEM, Core, TrainingSide
from autopilot.control.desk import Desk
from autopilot.control.earlier import Earlier, earlier_run
from autopilot.control.flight import Flight, Hold
from autopilot.control.guidance import Advice
from autopilot.control.observation import Observation, Sighting
from autopilot.control.pilots import Pilots
from autopilot.control.published import Published
from autopilot.control.reading import Readings
from autopilot.control.recorder import Recorder
from autopilot.guard import Role
from autopilot.journal import Journal
from autopilot.policy import Policy
from autopilot.ports import Clock, SystemClock
from autopilot.schema import (
    CheckpointInfo,
    Command,
    Consultation,
    Episode,
    Event,
    Finding,
    Guidance,
    Intervention,
    NoProposal,
    Proposal,
    ProposalRecord,
    ReadBack,
    Receipt,
    Row,
    RunStatus,
)
from autopilot.schema.metrics import VAL_LOSS

_ROW_BACKLOG = 200_000
_YOUNG = 200
"""Steps in which most of what goes wrong by a wrong setting shows."""


class ControlPlane(Readings):
    """Findings, proposals, verdicts, approvals, commands, receipts, canaries of one run.

    Args:
        journal: Opened for writing; the plane closes it.
        policy: What may be done.
        side: The training process.
        policy_text: The policy as the user wrote it, for those who ask.

    Attributes:
        observe: Hand in a row; costs the caller an append and never blocks.
        queue: Allowed proposals that wait for a boundary; empty means there is nothing to take.
        alert_above: A loss above it should be read without delay.
    """

    observe: Callable[[Row], None]

    def __init__(
        self,
        journal: Journal,
        policy: Policy,
        side: TrainingSide,
        *,
        steps: int | None = None,
        policy_text: str = "",
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._rows: deque[Row] = deque(maxlen=_ROW_BACKLOG)
        self.observe = self._rows.append
        self.alert_above = math.inf
        self._core = Core(
            policy=policy,
            clock=clock,
            recorder=Recorder(journal, clock, self._changed),
            observation=Observation(),
            side=side,
        )
        self.queue = self._core.queue
        self._desk = Desk(self._core)
        self._flight = Flight(self._core, self._desk)
        self._policy_text = policy_text
        self._started = clock.now()
        self._pilots = Pilots(self._core)
        self._published = Published(self._core)
        self._advice = Advice(self._core)
        self.steps = steps

    # --- the training thread --------------------------------------------------------------------

    def start(self, body: dict[str, Any]) -> Earlier | None:
        """Journal that the run begins, or goes on in a new process.

        Returns:
            Where the earlier process left it, if there was one.
        """
        with self._lock:
            core = self._core
            events = core.recorder.events(0, limit=1_000_000)
            core.ledger.restore(events)
            self._advice.restore(events)
            self._pilots.restore(events)
            core.failed_canaries = _failed_canaries(events)
            earlier = earlier_run(core.recorder.journal, events)
            left_open = self._go_on(events, earlier) if earlier is not None else []
            core.write("run_started", SYSTEM, body)
            for episode in left_open:
                core.note_episode(episode)
            self._flight.abandon()
            return earlier

    def _go_on(self, events: Sequence[Event], earlier: Earlier) -> list[Episode]:
        core = self._core
        for event in events:
            if event.kind == "episode":
                core.health.note_episode(Episode.model_validate(event.body["episode"]))
            elif event.kind == "evaluation" and VAL_LOSS in event.body["values"]:
                held_out = float(event.body["values"][VAL_LOSS])
                core.health.note_evaluation(event.branch, event.step, held_out)
        core.state_version = 1 + sum(event.kind in ("applied", "run_started") for event in events)
        return core.observation.go_on(events, earlier)

    def sound(self, checkpoints: Sequence[CheckpointInfo]) -> list[CheckpointInfo]:
        """Those on the present course that no known sickness reaches into, newest last."""
        with self._lock:
            core = self._core
            course = core.observation.course()
            kept = [c for c in checkpoints if core.health.is_sound(c, course)]
            return sorted(kept, key=lambda c: c.step)

    @property
    def attentive(self) -> bool:
        """Rows should be read without delay: the run is young, or something is the matter."""
        here = self._core.observation
        return here.executed < _YOUNG or here.troubled or self._flight.watching_closely()

    @property
    def hold(self) -> Hold | None:
        """Why training should wait at the boundary, if it should."""
        return self._flight.hold

    def wait(self, timeout: float) -> None:
        """Wait until something is journaled or queued, at most so many seconds."""
        with self._lock:
            self._changed.wait(timeout)

    def take(self) -> Command | None:
        """The next command to apply at this boundary; None where there is none."""
        with self._lock:
            self._drain()
            return self._flight.take()

    def start_branch(self, name: str, parent: str, fork_step: int) -> None:
        """The run went back and goes on as a new branch."""
        with self._lock:
            self._drain()
            self._core.recorder.start_branch(name, parent, fork_step, SYSTEM)
            self._core.observation.start_branch(name, parent, fork_step)

    def branches(self) -> list[str]:
        """Names of all branches, in the order in which they began."""
        with self._lock:
            return [branch.name for branch in self._core.recorder.journal.branches()]

    def applied(self, receipt: Receipt) -> None:
        """A command is in force."""
        with self._lock:
            before = tuple(self._core.observation.recent)
            self._flight.applied(receipt, before)

    def rejected(self, command_id: str, reason: str) -> None:
        """A command could not be applied; nothing was changed."""
        with self._lock:
            self._flight.rejected(command_id, reason)

    def proved(self, command_id: str, read_backs: tuple[ReadBack, ...]) -> None:
        """A command's values were read back where they take effect."""
        with self._lock:
            self._flight.proved(command_id, read_backs)

    def set_status(self, status: RunStatus, actor: str, reason: str) -> None:
        """The run was paused, resumed, held or ended."""
        with self._lock:
            if status != self._core.status:
                self._core.status = status
                self._core.write("status", actor, {"status": status, "reason": reason})

    def note_reflex(self, reflex: str, body: dict[str, Any]) -> None:
        """A reflex acted in the step."""
        with self._lock:
            self._core.write("reflex", f"reflex:{reflex}", body)

    def note(self, kind: Literal["checkpoint", "evaluation", "note"], body: dict[str, Any]) -> None:
        """A checkpoint was written, an evaluation was run, there is something to remark."""
        with self._lock:
            self._drain()
            self._core.write(kind, SYSTEM, body)

    def fault(self, text: str) -> None:
        """Report a fault of ours: loud, recorded, and the training goes on."""
        with self._lock:
            self._core.recorder.fault(text)
            self._core.write("fault", SYSTEM, {"text": text})

    def end(self, status: Literal["ended", "failed"], reason: str) -> None:
        """Take in what is left and journal the end; clients can still read it."""
        with self._lock:
            self._drain()
            self._core.status = status
            self._stop_taking()
            self._core.write("run_ended", SYSTEM, {"status": status, "reason": reason})

    def close(self) -> None:
        """Close the journal, once nobody asks any more."""
        with self._lock:
            self._core.recorder.close()

    def _stop_taking(self) -> None:
        """No step will come any more at which anything could be applied."""
        self._core.over = True
        self._flight.let_go("the run ended")

    # --- the control thread ---------------------------------------------------------------------

    def tick(self) -> None:
        """Read the rows that came in, and do what is due."""
        with self._lock:
            self._drain()
            self._desk.expire()
            if self._flight.release():
                self._changed.notify_all()
            self._pilots.check()
            self._published.check()

    def _drain(self) -> None:
        waiting = len(self._rows)
        if not waiting:
            return
        if waiting == _ROW_BACKLOG:
            self._core.recorder.fault("rows came faster than they could be read; some were lost")
        rows = [self._rows.popleft() for _ in range(waiting)]
        self._core.recorder.rows(rows)
        for row in rows:
            self._read(row)
        self.alert_above = self._core.observation.alert_above()

    def _read(self, row: Row) -> None:
        core = self._core
        sighting = core.observation.read(row)
        if VAL_LOSS in row.values:
            core.health.note_evaluation(row.branch, row.step, row.values[VAL_LOSS])
        if sighting is not None:
            self._tell(sighting)
        if self._flight.watches:
            self._flight.read(row)

    def _tell(self, sighting: Sighting) -> None:
        core = self._core
        for finding in sighting.findings:
            core.write("finding", SYSTEM, {"finding": finding.model_dump(mode="json")})
        for episode in sighting.episodes:
            core.note_episode(episode)
            self._flight.consider_hold(episode)

    # --- clients: acting ------------------------------------------------------------------------

    def propose(self, proposal: Proposal, *, actor: str, key: str) -> ProposalRecord:
        """File an agent's proposal; the same key again gives the same answer."""
        with self._lock:
            self._drain()
            return self._desk.propose(proposal, actor=actor, role="agent", key=key)

    def decide(
        self,
        proposal_id: str,
        decision: Literal["approve", "modify", "deny"],
        *,
        actor: str,
        digest: str,
        reason: str = "",
        interventions: tuple[Intervention, ...] | None = None,
    ) -> ProposalRecord:
        """A person's answer to a proposal that waits."""
        with self._lock:
            self._desk.expire()
            return self._desk.decide(
                proposal_id,
                decision,
                actor=actor,
                digest=digest,
                reason=reason,
                interventions=interventions,
            )

    def command(
        self,
        interventions: tuple[Intervention, ...],
        *,
        actor: str,
        key: str,
        rationale: str = "",
        force: bool = False,
    ) -> ProposalRecord:
        """A person's own intervention."""
        with self._lock:
            self._drain()
            return self._desk.command(
                interventions, actor=actor, key=key, rationale=rationale, force=force
            )

    def revert(self, proposal_id: str, *, actor: str, role: Role) -> ProposalRecord:
        """Undo what is in force."""
        with self._lock:
            return self._desk.revert(
                proposal_id, actor=actor, role=role, reason=f"undone by {actor}"
            )

    def confirm(self, proposal_id: str, *, actor: str) -> ProposalRecord:
        """Keep what is in force, whatever its canary or lease."""
        with self._lock:
            return self._flight.confirm(proposal_id, actor)

    def claim(self, finding: Finding, *, actor: str) -> Finding:
        """Journal what an outside detector claims; it never counts as the run's alarm."""
        with self._lock:
            claimed = self._core.observation.claim(finding, actor)
            self._core.write("finding", actor, {"finding": claimed.model_dump(mode="json")})
            return claimed

    def heartbeat(
        self,
        *,
        actor: str,
        seen_seq: int,
        no_proposal: NoProposal | None = None,
        consultations: Sequence[Consultation] = (),
    ) -> None:
        """The pilot lives, has looked at everything up to that event, and asked these models."""
        with self._lock:
            self._pilots.hear(actor, seen_seq, no_proposal, consultations)
            if self._flight.release():
                self._changed.notify_all()

    def tell(self, text: str, *, actor: str) -> Guidance:
        """Take an operator's guidance for whoever pilots."""
        with self._lock:
            self._drain()
            return self._advice.tell(text, actor)

    def withdraw(self, guidance_id: str, *, actor: str) -> Guidance:
        """Take guidance back."""
        with self._lock:
            self._drain()
            return self._advice.withdraw(guidance_id, actor)

    def reset_breaker(self, *, actor: str) -> None:
        """Let proposals be judged by the rules again after failed canaries."""
        with self._lock:
            self._core.failed_canaries = 0
            self._core.write("breaker", actor, {"open": False, "reason": "reset by a person"})


def _failed_canaries(events: Sequence[Event]) -> int:
    """Interventions that made things worse since a person last reset the breaker."""
    failed = 0
    for event in events:
        if event.kind == "breaker" and not event.body["open"]:
            failed = 0
        elif event.kind == "canary":
            result = event.body["record"]["canary_result"]["result"]
            failed += result == "reverted"
    return failed
