"""The control plane of a replay: the live one, ticked by the rows of a recording."""

from collections.abc import Iterator
from typing import Literal

from pydantic import ValidationError

from autopilot.control import ControlPlane
from autopilot.control.observation import Sighting
from autopilot.errors import BadInput
from autopilot.guard import changes_course
from autopilot.policy import Policy
from autopilot.recording.clock import RecordedClock
from autopilot.recording.past import PastJournal, Source
from autopilot.recording.recorded import Fork
from autopilot.recording.side import RecordedSide
from autopilot.recording.timeline import Facts
from autopilot.schema import (
    Capabilities,
    CheckpointInfo,
    Event,
    Finding,
    Guidance,
    ProposalRecord,
    Row,
)

Stop = Literal["news", "due", "read", "over"]
"""Why reading stopped: something was found or done, a step was reached, so many rows were read,
or nothing is left."""
NOT_APPLIED = "a recording cannot be changed: judged, but not applied"


class ReplayPlane(ControlPlane):
    """Detectors, triage, guard and ledger as in flight; what is allowed is never applied.

    A proposal that the policy allows or asks about stays pending and never expires: it is not in
    force, counts in no budget and starts no cool-down, and its episode is not proposed for again.
    What changes nothing (a note, an evaluation) is settled at once. Interventions that the
    recorded run did apply are facts: they are entered where they were applied, reset the baselines
    and count as they did then, and whatever is pending lapses with them.
    """

    def __init__(
        self,
        journal: PastJournal,
        policy: Policy,
        side: RecordedSide,
        *,
        source: Source,
        clock: RecordedClock,
        steps: int | None,
    ) -> None:
        super().__init__(journal, policy, side, steps=steps, clock=clock)
        here = self._core.observation
        journal.begin(source, here.recent)
        clock.follow(here)
        side.observed = here.last_values
        self._past, self._side, self._clock = journal, side, clock
        self._facts: dict[str, str] = {}
        self._news = False

    # --- rows -----------------------------------------------------------------------------------

    def read_on(
        self, items: Iterator[Row | Facts], *, most: int, between: tuple[float, float]
    ) -> Stop:
        """Read until something is found or changes the run.

        Args:
            items: What happens in the recording, in order.
            most: Rows to read at most.
            between: Also stop at a row whose step is not strictly between these.
        """
        lowest, highest = between
        left = most
        side, read = self._side, self._read
        with self._lock:
            self._news = False
            try:
                for item in items:
                    if not isinstance(item, Row):
                        for fact in item:
                            self._enter(fact)
                        return "news"
                    left -= 1
                    read(item)
                    step = item.step
                    if not side.last_snapshot <= step < side.next_snapshot:
                        side.snapshot(step, item.branch)
                    if self._news:
                        return "news"
                    if not lowest < step < highest:
                        return "due"
                    if not left:
                        return "read"
            finally:
                self._past.count += most - left
        return "over"

    def _tell(self, sighting: Sighting) -> None:
        self._news = True
        super()._tell(sighting)

    def _stop_taking(self) -> None:
        """Nothing is ever applied, so what is proposed about the last row counts like the rest."""

    @property
    def rows_read(self) -> int:
        """Rows of the recording taken in so far."""
        return self._past.count

    # --- what the recorded run did ---------------------------------------------------------------

    def _enter(self, fact: Fork | Event) -> None:
        """Take over what the recorded run did between two rows."""
        if isinstance(fact, Fork):
            here = self._core.observation
            self._side.went_back(here.step, here.branch, fact.fork_step)
            self.start_branch(fact.name, fact.parent, fact.fork_step)
            self._lapse()
            return
        try:
            match fact.kind:
                case "finding":
                    claimed = Finding.model_validate(fact.body["finding"])
                    self.claim(claimed, actor=claimed.claimed_by or fact.actor)
                case "checkpoint":
                    found = CheckpointInfo.model_validate(fact.body["checkpoint"])
                    self._side.saved(found)
                    self._core.write("checkpoint", fact.actor, fact.body)
                case "capabilities":
                    self._side.publish(Capabilities.model_validate(fact.body["capabilities"]))
                    self._core.write("capabilities", fact.actor, fact.body)
                case "run_started":
                    for episode in self._core.observation.process_ended():
                        self._core.note_episode(episode)
                case "guidance":
                    self._advice.enter(Guidance.model_validate(fact.body["guidance"]))
                    self._core.write("guidance", fact.actor, fact.body)
                case "breaker":
                    if not fact.body["open"]:
                        self._core.failed_canaries = 0
                    self._core.write("breaker", fact.actor, fact.body)
                case _:
                    self._enter_record(fact, ProposalRecord.model_validate(fact.body["record"]))
        except (KeyError, ValidationError) as error:
            raise BadInput(
                f"event {fact.seq} ({fact.kind}) of the recording is not what a run writes: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def _enter_record(self, fact: Event, recorded: ProposalRecord) -> None:
        if fact.kind == "applied":
            self._enter_applied(recorded)
            return
        ours = self._facts.get(recorded.id)
        if ours is None:
            return  # it never was in force
        core = self._core
        record = core.ledger.update(
            ours,
            status=recorded.status,
            receipt=recorded.receipt,
            canary_result=recorded.canary_result,
            reason=recorded.reason,
        )
        if fact.kind == "canary":
            result = recorded.canary_result
            core.failed_canaries += result is not None and result.result == "reverted"
        core.write_record(fact.kind, record, actor=fact.actor)

    def _enter_applied(self, recorded: ProposalRecord) -> None:
        """An intervention is in force in the recorded run, whatever the policy here says of it."""
        core, proposal = self._core, recorded.proposal
        record = core.ledger.file(
            proposal,
            actor=recorded.actor,
            key=None,
            verdict=recorded.verdict,
            time=recorded.filed_at,
            step=recorded.filed_step,
            expires_at=None,
            reverts=self._facts.get(recorded.reverts or ""),
        )
        self._facts[recorded.id] = record.id
        record = core.ledger.update(
            record.id, status="applied", receipt=recorded.receipt, canary=recorded.canary,
            approval=recorded.approval,
        )  # fmt: skip
        core.ledger.note_applied(record, executed=core.observation.executed, time=self._clock.now())
        self._side.applied(record)
        core.write_record("applied", record, actor=recorded.actor)
        if not changes_course(proposal.interventions):
            return
        core.state_version += 1
        self._lapse()
        for episode in core.observation.intervened():
            core.note_episode(episode)

    def _lapse(self) -> None:
        """What was pending was made for a run that is another one now."""
        for record in self._core.ledger.all("pending"):
            self._core.ledger.update(
                record.id, status="expired", reason="the recorded run was changed meanwhile"
            )

    # --- what the replayed agent proposes --------------------------------------------------------

    def set_aside(self, record: ProposalRecord) -> ProposalRecord:
        """Keep a judged proposal from ever being applied; returns it as it stands then."""
        core = self._core
        with self._lock:
            if record.status not in ("queued", "pending"):
                return record
            if record.status == "queued":
                core.queue.remove(record.id)
            acts = record.verdict.decision == "ask" or changes_course(record.proposal.interventions)
            status = "pending" if acts else "rejected"
            return core.ledger.update(record.id, status=status, expires_at=None, reason=NOT_APPLIED)
