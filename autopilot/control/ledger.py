"""The ledger of one run: every proposal with what became of it, and what the budgets count."""

from collections.abc import Iterable
from typing import Any

from autopilot.errors import NotFound
from autopilot.guard import AGENT, DAY, PERSON, Past, batches_skipped, changes_course
from autopilot.schema import Consultation, Event, Proposal, ProposalRecord, Verdict


class Ledger:
    """Holds the proposals of a run by id; the journal holds their whole history.

    Attributes:
        newest_change: The applied proposal that changed the course of the run last.
    """

    def __init__(self) -> None:
        self._records: dict[str, ProposalRecord] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._past: list[Past] = []
        self._paid: list[tuple[float, float]] = []
        self._count = 0
        self._applied: list[str] = []
        self.newest_change: str | None = None

    def file(
        self,
        proposal: Proposal,
        *,
        actor: str,
        key: str | None,
        verdict: Verdict,
        time: float,
        step: int,
        expires_at: float | None,
        reverts: str | None = None,
    ) -> ProposalRecord:
        """Enter a judged proposal under a new id."""
        self._count += 1
        status = {"allow": "queued", "ask": "pending", "deny": "denied"}[verdict.decision]
        record = ProposalRecord.model_validate(
            {
                "id": f"P{self._count}",
                "proposal": proposal,
                "actor": actor,
                "digest": proposal.digest(),
                "filed_at": time,
                "filed_step": step,
                "status": status,
                "verdict": verdict,
                "expires_at": expires_at,
                "canary": proposal.canary,
                "reverts": reverts,
            }
        )
        self._records[record.id] = record
        if key is not None:
            self.remember(actor, key, record.id)
        return record

    def update(self, proposal_id: str, **changes: Any) -> ProposalRecord:
        """Replace fields of a record."""
        record = self.get(proposal_id).model_copy(update=changes)
        self._records[proposal_id] = record
        return record

    def get(self, proposal_id: str) -> ProposalRecord:
        """Raises NotFound where there is none."""
        if proposal_id not in self._records:
            known = ", ".join(list(self._records)[-5:]) or "none yet"
            raise NotFound(f"no proposal {proposal_id!r}; the latest are: {known}")
        return self._records[proposal_id]

    def answered(self, actor: str, key: str) -> ProposalRecord | None:
        """What was answered to the same key of the same actor before."""
        found = self._keys.get((actor, key))
        return self._records[found] if found else None

    def remember(self, actor: str, key: str, proposal_id: str) -> None:
        """Answer that key with that proposal from now on."""
        self._keys[actor, key] = proposal_id

    def twin(self, proposal: Proposal, actor: str) -> ProposalRecord | None:
        """A proposal of the same content by the same actor that still waits."""
        digest = proposal.digest()
        waiting = (r for r in self.all() if r.status in ("pending", "queued"))
        return next((r for r in waiting if r.actor == actor and r.digest == digest), None)

    def all(self, status: str | None = None) -> list[ProposalRecord]:
        """Every proposal, oldest first."""
        return [r for r in self._records.values() if status is None or r.status == status]

    def in_flight(self) -> str | None:
        """The proposal that is queued, or applied and not yet read back, kept or not."""
        for record in self._records.values():
            outstanding = record.receipt is not None and record.receipt.proven is None
            if record.status == "queued" or outstanding:
                return record.id
        return None

    def note_applied(self, record: ProposalRecord, *, executed: int, time: float) -> None:
        """Remember what was applied, and what of it budgets and cool-downs are to count."""
        interventions = record.proposal.interventions
        changes = changes_course(interventions)
        self._applied.append(record.id)
        if changes:
            self.newest_change = record.id
        if not (record.actor.startswith(AGENT) or (record.actor.startswith(PERSON) and changes)):
            return
        self._past.append(
            Past(
                actor=record.actor,
                kinds=tuple(i.kind for i in interventions),
                executed=executed,
                time=time,
                episode=record.proposal.episode,
                skipped_batches=batches_skipped(interventions),
            )
        )

    def settled_since(self, record: ProposalRecord) -> tuple[list[str], list[str]]:
        """What people changed after it was applied, and is in force, in fields that it changed too.

        Returns:
            Ids of what they commanded or approved, and the fields; both empty where there is none.
        """
        later = self._applied[self._applied.index(record.id) + 1 :]
        theirs = [
            other
            for other in map(self.get, later)
            if other.status in ("applied", "kept")
            and is_by_a_person(other)
            and self._stands(other, later)
        ]
        fields = _fields(record)
        ids = [other.id for other in theirs if fields & _fields(other)]
        return ids, sorted(fields & set().union(*map(_fields, theirs)))

    def _stands(self, record: ProposalRecord, among: list[str]) -> bool:
        """Not merely an undoing of one among those, nor the undoing of what undid an undoing."""
        if record.reverts not in among:
            return True
        return not self._stands(self.get(record.reverts), among)

    def note_consultation(self, consultation: Consultation, time: float) -> None:
        """Count what a model was paid, where the price is known."""
        if consultation.usage.price_usd:
            self._paid.append((time, consultation.usage.price_usd))

    def llm_usd(self, time: float) -> float:
        """Dollars paid to models within a day; forgets what is older."""
        self._paid = [(at, usd) for at, usd in self._paid if time - at < DAY]
        return sum(usd for _, usd in self._paid)

    def history(self, *, executed: int, time: float) -> tuple[Past, ...]:
        """What the budgets and cool-downs still count; forgets what is older."""
        self._past = [
            past for past in self._past if time - past.time < DAY or executed - past.executed < 1000
        ]
        return tuple(self._past)

    def restore(self, events: Iterable[Event]) -> None:
        """Rebuild from the journal of an earlier process of the same run."""
        for event in events:
            if event.kind == "consultation":
                asked = Consultation.model_validate(event.body["consultation"])
                self.note_consultation(asked, event.time)
            body = event.body.get("record")
            if body is None:
                continue
            record = ProposalRecord.model_validate(body)
            self._records[record.id] = record
            self._count = max(self._count, int(record.id.removeprefix("P")))
            key = event.body.get("key")
            if key is not None:
                self.remember(record.actor, key, record.id)
            if event.kind == "applied":
                self.note_applied(record, executed=0, time=event.time)


def is_by_a_person(record: ProposalRecord) -> bool:
    """A person commanded it, or approved it."""
    decided = record.approval.actor if record.approval is not None else record.actor
    return decided.startswith(PERSON)


def _fields(record: ProposalRecord) -> set[str]:
    return {change.field for change in record.receipt.changes} if record.receipt else set()
