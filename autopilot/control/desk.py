"""The desk where proposals come in: judged, queued, asked about, decided, expired, undone."""

from dataclasses import replace
from typing import Literal

from pydantic import ValidationError

from autopilot.control.core import SYSTEM, Core
from autopilot.control.ledger import is_by_a_person
from autopilot.control.observation import figures_agree
from autopilot.errors import Forbidden, OutOfBounds, Refused, StaleProposal, Unsupported
from autopilot.guard import Role, Situation, changes_course, review, review_limits
from autopilot.schema import (
    Approval,
    Intervention,
    Pause,
    Proposal,
    ProposalRecord,
    SaveCheckpoint,
    Verdict,
)

_UNDONE_BY_INVERSE = frozenset({"applied", "kept"})


class Desk:
    """Files proposals and what people decide about them. Guarded by the control plane's lock."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def propose(
        self, proposal: Proposal, *, actor: str, role: Role, key: str | None, forced: bool = False
    ) -> ProposalRecord:
        """Judge a proposal and enter it.

        Raises:
            StaleProposal: It was made against a state that an intervention has changed since.
            Refused: The run has ended.
        """
        core = self._core
        answered = core.ledger.answered(actor, key) if key is not None else None
        if answered is not None:
            return answered
        twin = core.ledger.twin(proposal, actor)
        if twin is not None:
            if key is not None:  # it must give the same answer when the twin waits no more
                core.ledger.remember(actor, key, twin.id)
                core.write_record("status", twin, actor=actor, key=key)
            return twin
        self._must_go_on()
        version = proposal.state_version
        if version is not None and version != core.state_version:
            raise StaleProposal(
                f"the proposal was made against state {version}, the run is at "
                f"{core.state_version}; look again",
                changed=self._changed_since(),
            )
        verdict = self._judge(proposal, actor=actor, role=role, forced=forced)
        now = core.clock.now()
        record = core.ledger.file(
            proposal,
            actor=actor,
            key=key,
            verdict=verdict,
            time=now,
            step=core.observation.step,
            expires_at=now + core.policy.approval.ttl if verdict.decision == "ask" else None,
        )
        core.write_record("proposal", record, actor=actor, key=key)
        if verdict.decision == "allow":
            if forced:
                core.forced.add(record.id)
            core.enqueue(record)
        return record

    def _must_go_on(self) -> None:
        if self._core.over:
            raise Refused("the run has ended: nothing in it can be changed any more")

    def command(
        self,
        interventions: tuple[Intervention, ...],
        *,
        actor: str,
        key: str | None,
        rationale: str,
        force: bool,
    ) -> ProposalRecord:
        """A person's own intervention: limits and capabilities hold, approval is implied.

        Raises:
            Unsupported: The run cannot do this.
            OutOfBounds: It leaves the policy's limits and was not forced.
        """
        proposal = Proposal(interventions=interventions, rationale=rationale)
        answered = self._core.ledger.answered(actor, key) if key is not None else None
        if answered is not None:
            return answered
        verdict = self._judge(proposal, actor=actor, role="operator", forced=force)
        if verdict.decision == "deny":
            refusal = Unsupported if verdict.rule == "capabilities" else OutOfBounds
            raise refusal(f"{verdict.rule}: {verdict.reason}")
        return self.propose(proposal, actor=actor, role="operator", key=key, forced=force)

    def decide(
        self,
        proposal_id: str,
        decision: Literal["approve", "modify", "deny"],
        *,
        actor: str,
        digest: str,
        reason: str,
        interventions: tuple[Intervention, ...] | None,
    ) -> ProposalRecord:
        """A person's answer to a proposal that waits.

        Raises:
            Refused: It does not wait any more, or the answer is not complete.
            StaleProposal: The answer is to another text, or the run has changed since.
        """
        core = self._core
        record = core.ledger.get(proposal_id)
        if record.status != "pending":
            raise Refused(f"{proposal_id} is {record.status}; there is nothing to decide")
        if digest != record.digest:
            raise StaleProposal(
                f"this answers another version of {proposal_id}; look at it again",
                changed="the proposal",
            )
        if (decision == "modify") != (interventions is not None):
            raise Refused("modify, and only modify, needs the interventions to apply instead")
        approval = Approval(
            decision=decision,
            actor=actor,
            at=core.clock.now(),
            digest=digest,
            reason=reason,
            modified=interventions,
        )
        if decision == "deny":
            record = core.ledger.update(
                proposal_id, status="denied", approval=approval, reason=reason
            )
            core.write_record("approval", record, actor=actor)
            return record
        return self._approve(record, approval, interventions or record.proposal.interventions)

    def _approve(
        self,
        record: ProposalRecord,
        approval: Approval,
        interventions: tuple[Intervention, ...],
    ) -> ProposalRecord:
        core = self._core
        try:
            proposal = Proposal.model_validate(
                {**record.proposal.model_dump(), "interventions": interventions}
            )
        except ValidationError as error:
            raise Refused(str(error.errors()[0]["msg"])) from error
        newer = self._newer(record)
        if newer:
            raise StaleProposal(
                f"{', '.join(newer)} changed the run since {record.id} was made; look at the run "
                "as it is now and let it be proposed again, or command it yourself",
                changed=self._changed_since(),
            )
        verdict = self._judge(proposal, actor=approval.actor, role="operator")
        if verdict.decision == "deny":
            raise OutOfBounds(f"{verdict.rule}: {verdict.reason}")
        record = core.ledger.update(
            record.id, status="queued", approval=approval, proposal=proposal
        )
        core.write_record("approval", record, actor=approval.actor)
        core.enqueue(record)
        return record

    def revert(
        self,
        proposal_id: str,
        *,
        actor: str,
        role: Role,
        reason: str,
        interventions: tuple[Intervention, ...] | None = None,
    ) -> ProposalRecord:
        """Undo an applied proposal by its inverse, or by what the caller knows to be better.

        Raises:
            Forbidden: An agent may undo only what it proposed itself.
            Refused: It is not in force, nothing can undo it, or no person asks and it would change
                what a person set since.
        """
        core = self._core
        record = core.ledger.get(proposal_id)
        if role != "operator" and actor not in (record.actor, SYSTEM):
            raise Forbidden(f"{proposal_id} is {record.actor}'s; an agent may undo its own only")
        if role == "agent" and actor != SYSTEM and record.reverts is not None:
            raise Forbidden(
                f"{proposal_id} undid {record.reverts}; an agent proposes that again, so that the "
                "policy judges it"
            )
        if record.status not in _UNDONE_BY_INVERSE or record.receipt is None:
            raise Refused(f"{proposal_id} is {record.status}; only what is in force can be undone")
        overrides = None if role == "operator" else self._overrides(record)
        if overrides is not None:
            raise Refused(f"{proposal_id} cannot be undone but by a person: {overrides}")
        self._must_go_on()
        inverse = record.receipt.inverse if interventions is None else interventions
        if not inverse:
            why = record.receipt.no_inverse or "it has no inverse"
            raise Refused(f"{proposal_id} cannot be undone: {why}")
        under_way = next((r for r in core.ledger.all("queued") if r.reverts == proposal_id), None)
        if under_way is not None:
            return under_way
        undo = core.ledger.file(
            Proposal(interventions=inverse, rationale=reason),
            actor=actor,
            key=None,
            verdict=Verdict(decision="allow", rule="undo", reason=reason),
            time=core.clock.now(),
            step=core.observation.step,
            expires_at=None,
            reverts=proposal_id,
        )
        core.write_record("proposal", undo, actor=actor)
        core.enqueue(undo)
        return undo

    def expire(self) -> None:
        """Settle proposals that nobody answered in time, as the policy says."""
        core = self._core
        now = core.clock.now()
        for record in core.ledger.all("pending"):
            if record.expires_at is None or now < record.expires_at:
                continue
            approval = Approval(
                decision="expired",
                actor=SYSTEM,
                at=now,
                digest=record.digest,
                reason="nobody answered in time",
            )
            passed = self._has_passed(record.proposal.episode)
            reason = f"{approval.reason}{'; by then it had passed' if passed else ''}"
            record = core.ledger.update(
                record.id, status="expired", approval=approval, reason=reason
            )
            core.write_record("approval", record, actor=SYSTEM)
            if not passed:
                self._after_expiry(record)

    def _has_passed(self, episode_id: str | None) -> bool:
        """It is over without an answer: there is nothing left to hold or change the run for."""
        episode = self._core.observation.episodes.get(episode_id or "")
        return episode is not None and episode.status == "closed"

    def _after_expiry(self, record: ProposalRecord) -> None:
        core = self._core
        match core.policy.approval.on_expiry:
            case "nothing":
                return
            case "hold":
                if core.status == "paused":
                    return
                offered = core.side.capabilities().interventions
                hold: tuple[Intervention, ...] = (Pause(),)
                if "save_checkpoint" in offered:
                    hold = (SaveCheckpoint(tag="held"), Pause())
                self._order(hold, f"nobody answered {record.id}; holding the run as it is")
            case "allow_reversible":
                reversible = {"scale_lr", "set_lr", "rewarm_lr", "set_optimizer", "set_grad_clip"}
                reversible |= {"set_knob", "rollback"}
                if not all(i.kind in reversible for i in record.proposal.interventions):
                    return
                verdict = self._judge(record.proposal, actor=record.actor, role="agent")
                problem, newer = f"{verdict.rule}: {verdict.reason}", self._newer(record)
                if newer:
                    problem = f"{', '.join(newer)} changed the run since it was made"
                if verdict.decision == "deny" or newer:
                    reason = f"{record.reason}; by now {problem}"
                    record = core.ledger.update(record.id, reason=reason)
                else:
                    record = core.ledger.update(record.id, status="queued")
                    core.enqueue(record)
                core.write_record("approval", record, actor=SYSTEM)

    def _order(self, interventions: tuple[Intervention, ...], reason: str) -> None:
        core = self._core
        record = core.ledger.file(
            Proposal(interventions=interventions, rationale=reason),
            actor=SYSTEM,
            key=None,
            verdict=Verdict(decision="allow", rule="approval.on_expiry", reason=reason),
            time=core.clock.now(),
            step=core.observation.step,
            expires_at=None,
        )
        core.write_record("proposal", record, actor=SYSTEM)
        core.enqueue(record)

    def obstacle(self, record: ProposalRecord) -> str | None:
        """Why an allowed proposal must not be applied any more; None where nothing is in its way.

        Undoing the newest change goes back to what was in force; only what the run can do holds
        for it. Undoing an older one leads somewhere new, so the limits hold too; and what a person
        set since, only a person's undoing changes.
        """
        core, proposal, undoes = self._core, record.proposal, record.reverts
        goes_back = undoes is not None and undoes == core.ledger.newest_change
        forced = record.id in core.forced or goes_back
        try:
            if undoes is not None and not is_by_a_person(record):
                overrides = self._overrides(core.ledger.get(undoes))
                if overrides is not None:
                    return overrides
            situation = self._situation(proposal, record.actor, "operator", forced=forced)
            situation = replace(situation, undoing=undoes is not None)
            verdict = review_limits(core.policy, proposal, situation)
        except Exception as error:
            verdict = self._failed(record.actor, error)
        return f"{verdict.rule}: {verdict.reason}" if verdict is not None else None

    def _overrides(self, undone: ProposalRecord) -> str | None:
        """What of a person's word undoing it would change; None where nothing."""
        theirs, fields = self._core.ledger.settled_since(undone)
        return f"{', '.join(theirs)} of a person set {', '.join(fields)} since" if theirs else None

    def _judge(
        self, proposal: Proposal, *, actor: str, role: Role, forced: bool = False
    ) -> Verdict:
        core, here = self._core, self._core.observation
        try:
            situation = self._situation(proposal, actor, role, forced=forced)
            history = core.ledger.history(executed=here.executed, time=situation.time)
            return review(core.policy, proposal, situation, history)
        except Exception as error:
            return self._failed(actor, error)

    def _failed(self, actor: str, error: Exception) -> Verdict:
        """An error while judging is a deny, never an action."""
        self._core.recorder.fault(f"the guard failed on a proposal of {actor}: {error!r}")
        return Verdict(decision="deny", rule="error", reason="the guard failed; see the log")

    def _situation(self, proposal: Proposal, actor: str, role: Role, *, forced: bool) -> Situation:
        core, here = self._core, self._core.observation
        episode = here.episodes.get(proposal.episode) if proposal.episode else None
        verified = bool(proposal.evidence) and all(
            figures_agree(
                cited, core.recorder.journal.value_at(here.branch, cited.metric, cited.step)
            )
            for cited in proposal.evidence
        )
        return Situation(
            actor=actor,
            role=role,
            step=here.step,
            executed=here.executed,
            time=core.clock.now(),
            capabilities=core.side.capabilities(),
            episode=episode,
            evidence_verified=verified,
            checkpoints=core.checkpoints(),
            in_flight=core.ledger.in_flight(),
            breaker_open=core.breaker_open,
            phases=core.side.phases(),
            forced=forced,
        )

    def _newer(self, record: ProposalRecord) -> list[str]:
        """What was filed after it and changed the run, without a person having been asked."""
        filed = self._core.ledger.all()
        later = filed[[other.id for other in filed].index(record.id) + 1 :]
        return [
            other.id
            for other in later
            if other.receipt is not None
            and other.approval is None
            and other.reverts is None
            and changes_course(other.proposal.interventions)
        ]

    def _changed_since(self) -> str:
        applied = [r for r in self._core.ledger.all() if r.receipt is not None][-3:]
        parts = [f"{r.id} ({', '.join(i.kind for i in r.proposal.interventions)})" for r in applied]
        return ", ".join(parts) or "the run's state"
