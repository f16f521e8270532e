"""What is on its way into the run, in force in it, and watched: commands, receipts, canaries."""

from collections.abc import Sequence
from dataclasses import dataclass

from autopilot.control.canary import Watch, fix_bound
from autopilot.control.core import SYSTEM, Core
from autopilot.control.desk import Desk
from autopilot.control.ledger import is_by_a_person
from autopilot.errors import Refused
from autopilot.guard import HARMLESS, changes_course
from autopilot.schema import (
    Canary,
    CanaryResult,
    Command,
    Episode,
    Intervention,
    ProposalRecord,
    ReadBack,
    Receipt,
    Rollback,
    Row,
)

_NOTHING_TO_WATCH = HARMLESS | {
    "pause", "resume", "stop", "call_action", "branch", "switch_branch"
}  # fmt: skip

_CLOSELY = 50
"""Steps after an intervention in which a relapse should be seen without delay."""


@dataclass(frozen=True)
class Hold:
    """Training waits at the boundary for the pilot's decision about an episode."""

    episode: str
    seq: int
    until: float


class Flight:
    """Follows each command from the queue to its outcome. Guarded by the control plane's lock."""

    def __init__(self, core: Core, desk: Desk) -> None:
        self._core = core
        self._desk = desk
        self.watches: dict[str, Watch] = {}
        self.hold: Hold | None = None

    def watching_closely(self) -> bool:
        """An intervention was applied a short while ago."""
        executed = self._core.observation.executed
        return any(executed - watch.executed_at < _CLOSELY for watch in list(self.watches.values()))

    def take(self) -> Command | None:
        """The next command to apply, checked once more against the run as it is now."""
        core = self._core
        while core.queue:
            record = core.ledger.get(core.queue.popleft())
            limit = record.proposal.not_after_step
            if limit is not None and core.observation.step > limit:
                self._drop(record, "expired", f"the run is past step {limit}")
                continue
            problem = self._desk.obstacle(record)
            if problem:
                self._drop(record, "rejected", problem)
                continue
            core.forced.discard(record.id)
            return Command(
                id=record.id,
                interventions=record.proposal.interventions,
                actor=record.actor,
                not_after_step=limit,
            )
        return None

    def abandon(self) -> None:
        """Settle what an earlier process of this run left on its way or not read back."""
        self.let_go("the process ended")
        for record in self._core.ledger.all():
            if record.receipt is not None and record.receipt.proven is None:
                receipt = record.receipt.model_copy(update={"proven": False})
                reason = "the process ended before it was read back"
                changes = {"receipt": receipt, "reason": reason}
                record = self._core.ledger.update(record.id, **changes)
                self._core.write_record("receipt", record, actor=SYSTEM)
            if record.status == "applied" and record.canary and record.canary_result is None:
                watch = Watch(record.id, record.proposal.episode, record.canary, None, 0)
                result = watch.superseded(self._core.observation.step, "the end of the process")
                assert result is not None, "it has a canary"
                self._settle(watch, result)
            if _is_on_lease(record):
                self.watches[record.id] = Watch(
                    proposal=record.id,
                    episode=record.proposal.episode,
                    canary=None,
                    lease_steps=record.proposal.lease_steps,
                    executed_at=self._core.observation.executed,
                )

    def let_go(self, why: str) -> None:
        """Expire what can be neither applied nor answered any more."""
        for record in self._core.ledger.all("queued"):
            self._drop(record, "expired", f"{why} before it was applied")
        for record in self._core.ledger.all("pending"):
            self._drop(record, "expired", f"{why} before anybody answered")

    def _drop(self, record: ProposalRecord, status: str, reason: str) -> None:
        record = self._core.ledger.update(record.id, status=status, reason=reason)
        self._core.write_record("rejected", record, actor=SYSTEM)

    def rejected(self, command_id: str, reason: str) -> None:
        """The run could not apply it; nothing was changed."""
        self._drop(self._core.ledger.get(command_id), "rejected", reason)

    def applied(self, receipt: Receipt, before: Sequence[Row]) -> None:
        """It is in force: start its canary, reset the baselines, count it.

        Args:
            receipt: The proof so far; the read-backs follow.
            before: Rows from before it was applied, oldest first.
        """
        core = self._core
        record = core.ledger.get(receipt.command)
        canary = self._canary_for(record, before)
        record = core.ledger.update(record.id, status="applied", receipt=receipt, canary=canary)
        core.ledger.note_applied(record, executed=core.observation.executed, time=core.clock.now())
        core.write_record("applied", record, actor=record.actor, in_force=core.side.in_force())
        if record.reverts is not None:
            reverted = core.ledger.update(
                record.reverts, status="reverted", reason=record.proposal.rationale
            )
            self.watches.pop(reverted.id, None)
            core.write_record("status", reverted, actor=record.actor)
        if changes_course(record.proposal.interventions):
            core.state_version += 1
            self._supersede(record.id)
            for episode in core.observation.intervened():
                core.note_episode(episode)
        lease = record.proposal.lease_steps
        if canary is not None or lease is not None:
            self.watches[record.id] = Watch(
                proposal=record.id,
                episode=record.proposal.episode,
                canary=canary,
                lease_steps=lease,
                executed_at=core.observation.executed,
            )

    def _canary_for(self, record: ProposalRecord, before: Sequence[Row]) -> Canary | None:
        watched = any(i.kind not in _NOTHING_TO_WATCH for i in record.proposal.interventions)
        if record.reverts is not None or not watched:
            return None
        canary = record.proposal.canary
        if canary is None:
            if self._core.policy.canary.revert_if == "never":
                return None
            canary = Canary(steps=self._core.policy.canary.steps)
        return fix_bound(canary, self._comparable(record, before))

    def _comparable(self, record: ProposalRecord, before: Sequence[Row]) -> Sequence[Row]:
        """The rows that what comes can be held against.

        Where a setting is mended in place the weights stay, and so does the data: the remedy is to
        be no worse than the sickness, not to bring back what was before, say, the data changed.
        """
        episode = self._core.observation.episodes.get(record.proposal.episode or "")
        back = any(i.kind == "rollback" for i in record.proposal.interventions)
        if episode is None or episode.diagnosis != "misdriven" or back:
            return before
        return [row for row in before if row.step >= episode.onset_step] or before

    def _supersede(self, by: str) -> None:
        for proposal_id in list(self.watches):
            watch = self.watches[proposal_id]
            result = watch.superseded(self._core.observation.step, by)
            if result is not None:
                self._settle(watch, result)

    def proved(self, command_id: str, read_backs: tuple[ReadBack, ...]) -> None:
        """The values were read where they take effect; one that disagrees is undone at once."""
        core = self._core
        record = core.ledger.get(command_id)
        assert record.receipt is not None, "only what was applied is read back"
        good = all(read_back.ok for read_back in read_backs)
        receipt = record.receipt.model_copy(update={"read_back": read_backs, "proven": good})
        record = core.ledger.update(command_id, receipt=receipt)
        core.write_record("receipt", record, actor=SYSTEM)
        if good:
            return
        wrong = next(read_back for read_back in read_backs if not read_back.ok)
        words = f"{wrong.field} read back {wrong.value}, not {wrong.expected}"
        if record.reverts is None:
            self._undo(record.id, words)
        else:  # undoing the undo would only go to and fro
            text = f"{record.id}, which undoes {record.reverts}, is not in force: {words}"
            core.recorder.fault(text)
            core.write("fault", SYSTEM, {"text": text})

    def read(self, row: Row) -> None:
        """Let every canary and lease read a row."""
        executed = self._core.observation.executed
        for watch in list(self.watches.values()):
            result = watch.update(row, executed)
            if result is not None:
                self._settle(watch, result)
            elif watch.lease_over(executed):
                del self.watches[watch.proposal]
                self._undo(watch.proposal, "nobody confirmed it within its lease")

    def _settle(self, watch: Watch, result: CanaryResult) -> None:
        core = self._core
        watch.canary = None
        if watch.lease_steps is None or watch.confirmed or result.result == "reverted":
            self.watches.pop(watch.proposal, None)
        status = "kept" if result.result in ("kept", "void") else "applied"
        record = core.ledger.update(watch.proposal, status=status, canary_result=result)
        core.write_record("canary", record, actor=SYSTEM)
        if result.result != "reverted":
            return
        core.failed_canaries += 1
        if core.failed_canaries == core.policy.breaker.failed_canaries:
            reason = f"{core.failed_canaries} interventions made things worse"
            core.write("breaker", SYSTEM, {"open": True, "reason": reason})
        words = f"canary: {result.metric} {result.value:.4g}, bound {result.bound:.4g}"
        self._undo(watch.proposal, words, instead=_back_without_the_change(record))

    def _undo(
        self,
        proposal_id: str,
        reason: str,
        instead: tuple[Intervention, ...] | None = None,
    ) -> None:
        try:
            self._desk.revert(
                proposal_id, actor=SYSTEM, role="agent", reason=reason, interventions=instead
            )
        except Refused as refusal:
            self._core.write(
                "note", SYSTEM, {"text": f"{proposal_id} was to be undone ({reason}): {refusal}"}
            )

    def confirm(self, proposal_id: str, actor: str) -> ProposalRecord:
        """A person keeps what is in force: its lease and its canary end."""
        core = self._core
        record = core.ledger.get(proposal_id)
        if record.status != "applied" and proposal_id not in self.watches:
            raise Refused(f"{proposal_id} is {record.status}; only what is applied is confirmed")
        self.watches.pop(proposal_id, None)
        for undo in core.ledger.all("queued"):
            if undo.reverts == proposal_id and not is_by_a_person(undo):
                core.queue.remove(undo.id)
                self._drop(
                    undo, "rejected", f"{actor} confirmed {proposal_id} before it was undone"
                )
        record = core.ledger.update(proposal_id, status="kept", reason=f"confirmed by {actor}")
        core.write_record("status", record, actor=actor)
        return record

    # --- holding at the boundary ----------------------------------------------------------------

    def consider_hold(self, episode: Episode) -> None:
        """Hold training for a living pilot when something new needs its decision.

        Where a question about it waits already, training goes on: a person was held for once.
        """
        core = self._core
        limit = core.policy.reflexes.hold_on_alarm
        if limit <= 0 or core.policy.autonomy == "observe" or not core.living_pilots():
            return
        if self._is_asked_about(episode.id):
            return
        if episode.status == "open" and episode.diagnosis != "benign":
            self.hold = Hold(episode.id, core.recorder.last_seq, core.clock.now() + limit)

    def release(self) -> bool:
        """End a hold once it is decided, by the pilot and by the person it asked, or over.

        Returns:
            Whether one ended.
        """
        hold, core = self.hold, self._core
        if hold is None:
            return False
        unseen = any(pilot.seen_seq < hold.seq for pilot in core.living_pilots())
        asked = self._is_asked_about(hold.episode)
        if (unseen or asked) and core.clock.now() < hold.until:
            return False
        self.hold = None
        return True

    def _is_asked_about(self, episode: str) -> bool:
        return any(r.proposal.episode == episode for r in self._core.ledger.all("pending"))


def _is_on_lease(record: ProposalRecord) -> bool:
    """It is in force, and nobody has confirmed it; who does says so in its reason."""
    in_force = record.status in ("applied", "kept") and not record.reason
    return in_force and record.proposal.lease_steps is not None


def _back_without_the_change(record: ProposalRecord) -> tuple[Intervention, ...] | None:
    """What undoes a failed proposal that went back: not the damaged state that it left.

    The settings it changed are put back, and the run begins once more from the good state. One
    that changed no setting has nothing to undo: the same steps would end the same way. None where
    the proposal did not go back, so that its plain inverse holds.
    """
    assert record.receipt is not None, "a canary follows what was applied"
    if not any(isinstance(i, Rollback) for i in record.proposal.interventions):
        return None
    settings = tuple(i for i in record.receipt.inverse if not isinstance(i, Rollback))
    if not settings:
        return ()
    target = str(record.receipt.results.get("checkpoint", "last_good"))
    return (*settings, Rollback(checkpoint=target))
