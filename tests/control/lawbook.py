"""The policy's law written a second time, plainly, and held against what a journal says was done.

It shares no line with the guard. What a journal does not hold (how many steps had been executed,
which phase the run was in) comes from whoever drove the run.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from autopilot.policy import Policy
from autopilot.schema import (
    Event,
    Intervention,
    ProposalRecord,
    Rollback,
    ScaleLR,
    SetGradClip,
    SetLR,
    SkipBatches,
)

PLAN = 0.01
DAY = 24 * 60 * 60
FREE = {"note", "evaluate", "save_checkpoint"}
ON_COURSE = FREE | {"pause", "resume"}
GOING_BACK = ("rollback", "branch", "switch_branch")
REVERSIBLE = {
    "scale_lr", "set_lr", "rewarm_lr", "set_optimizer", "set_grad_clip", "set_knob", "rollback"
}  # fmt: skip
LITTLE = 1e-6
"""What rounding may add up to."""


# --- settings -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What is in force.

    Attributes:
        factors: Learning rate over plan, a group each.
        following: Groups that the latest interventions handed back to plan or schedule.
    """

    factors: tuple[float, ...] = (1.0, 1.0)
    clip: float | None = None
    following: frozenset[int] = frozenset()

    def after(self, interventions: Iterable[Intervention]) -> "Settings":
        """What is in force once these have been applied in order."""
        factors, clip, following = list(self.factors), self.clip, set[int]()
        for i in interventions:
            if isinstance(i, SetGradClip):
                clip = i.max_norm
            elif isinstance(i, ScaleLR | SetLR):
                for group in range(len(factors)) if i.groups is None else i.groups:
                    following.discard(group)
                    if isinstance(i, ScaleLR):
                        factors[group] *= i.factor
                    elif isinstance(i.value, str):
                        factors[group] = 1.0
                        following.add(group)
                    else:
                        factors[group] = i.value / PLAN
        return Settings(tuple(factors), clip, frozenset(following))

    def equals(self, other: "Settings") -> bool:
        """The same but for rounding."""
        pairs = zip(self.factors, other.factors, strict=True)
        return self.clip == other.clip and all(abs(a - b) <= LITTLE * b for a, b in pairs)


def check_limits(
    policy: Policy, old: Settings, interventions: Sequence[Intervention], *, at_once: bool = True
) -> None:
    """The interventions, applied to the old settings, stay within the limits.

    Args:
        policy: Its limits.
        old: What was in force.
        interventions: What is applied, in order.
        at_once: How much they raise the learning rate at once is limited too.
    """
    limits, new = policy.limits, old.after(interventions)
    for i in interventions:
        if isinstance(i, SetGradClip) and i.max_norm is not None:
            assert i.max_norm >= limits.grad_clip.min, "clips below the least"
    if not any(isinstance(i, ScaleLR | SetLR) for i in interventions):
        return
    least, most = limits.lr.total_factor
    for group, (was, now) in enumerate(zip(old.factors, new.factors, strict=True)):
        assert now >= least * (1 - LITTLE), f"group {group} at {now} of its plan"
        assert now <= most * (1 + LITTLE), f"group {group} at {now} times its plan"
        if now == was or group in new.following:
            continue
        assert now * PLAN >= limits.lr.min * (1 - LITTLE), f"group {group} below the least"
        raised = now / was
        assert not at_once or raised <= limits.lr.max_factor * (1 + LITTLE), f"raised {raised} x"


# --- budgets and cool-downs -----------------------------------------------------------------------


@dataclass(frozen=True)
class Deed:
    """What an agent did, or a person to the run's course, and when."""

    actor: str
    interventions: Sequence[Intervention]
    episode: str | None
    executed: int
    time: float


def _is_free(interventions: Sequence[Intervention]) -> bool:
    return all(i.kind in FREE for i in interventions)


def _goings_back(interventions: Sequence[Intervention]) -> int:
    return sum(i.kind in GOING_BACK for i in interventions)


def _skipped(interventions: Sequence[Intervention]) -> int:
    jumps = sum(i.skip_batches for i in interventions if isinstance(i, Rollback))
    return jumps + sum(i.count for i in interventions if isinstance(i, SkipBatches))


def check_ledgers(
    policy: Policy,
    deeds: Iterable[Deed],
    interventions: Sequence[Intervention],
    episode: str | None,
    executed: int,
    time: float,
) -> None:
    """An agent may do this now, as far as budgets and cool-downs go.

    Args:
        policy: Its budgets and cool-downs.
        deeds: What was done before, in order; of people's only the last counts, for cool-downs.
        interventions: What is to be done.
        episode: For which episode.
        executed: Steps executed by now.
        time: Seconds.
    """
    if _is_free(interventions):
        return
    budget, before = policy.budget, [d for d in deeds if not _is_free(d.interventions)]
    agents = [d for d in before if not d.actor.startswith("human:")]
    recent = [d for d in agents if executed - d.executed < 1000]
    today = [d for d in agents if time - d.time < DAY]
    assert len(recent) < budget.interventions.per_1000_steps, "too many in 1000 steps"
    assert len(today) < budget.interventions.per_day, "too many in a day"
    if back := _goings_back(interventions):
        back += sum(_goings_back(d.interventions) for d in today)
        assert back <= budget.rollbacks.per_day, "goes back too often"
    if skipped := _skipped(interventions):
        skipped += sum(_skipped(d.interventions) for d in today)
        assert skipped <= budget.skipped_batches.per_day, "skips too much"
    if before:
        same = episode is not None and episode == before[-1].episode
        needed = policy.cooldown.same_episode if same else policy.cooldown.steps
        assert executed - before[-1].executed >= needed, "too soon after the last"


def check_rules(policy: Policy, interventions: Sequence[Intervention], rule: str) -> None:
    """What was allowed to an agent by a rule is not spoken of more strictly without conditions."""
    named = [r for r in policy.rules if r.name == rule and r.verdict == "allow"]
    assert named or (rule == "default" and policy.default == "allow"), f"allowed by {rule}"
    for i in interventions:
        for r in policy.rules:
            unconditional = not r.where.model_dump(exclude_none=True)
            covers = i.kind in r.kinds or "*" in r.kinds
            assert r.verdict == "allow" or not (unconditional and covers), f"{i.kind}: {r.name}"


# --- a journal ------------------------------------------------------------------------------------

NEXT = {
    "pending": {"pending", "denied", "expired", "queued"},
    "expired": {"expired", "queued"},
    "queued": {"queued", "applied", "rejected", "expired"},
    "applied": {"applied", "kept", "reverted"},
    "kept": {"kept", "reverted"},
    "reverted": {"reverted"},
    "denied": set[str](),
    "rejected": set[str](),
}
"""What may become of a proposal, by its status."""


@dataclass(frozen=True)
class Circumstance:
    """What no event says: steps executed in all processes, and the phases the run was in."""

    executed: int
    phases: frozenset[str]


@dataclass
class Lawbook:
    """Reads a journal event by event and holds each deed in it against the policy.

    Attributes:
        at: The circumstance in which the event of that sequence number came about.
        settings: What is in force by what was journaled as applied.
    """

    policy: Policy
    at: Callable[[int], Circumstance]
    settings: Settings = Settings()
    latest: dict[str, ProposalRecord] = field(default_factory=dict)
    deeds: list[Deed] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    failed_canaries: int = 0
    _before: dict[str, Settings] = field(default_factory=dict)

    def read(self, events: Iterable[Event]) -> None:
        """Raises AssertionError at the first event that the policy does not bear out."""
        for event in events:
            if event.kind == "breaker" and not event.body["open"]:
                self.failed_canaries = 0
            if "record" not in event.body:
                continue
            record = ProposalRecord.model_validate(event.body["record"])
            self._check_course(event, record)
            if event.kind == "proposal":
                self._check_filed(event, record)
            elif event.kind == "approval":
                self._check_decided(event, record)
            elif event.kind == "applied":
                self._check_applied(event, record)
            elif event.kind == "canary" and record.canary_result is not None:
                self.failed_canaries += record.canary_result.result == "reverted"
            self.latest[record.id] = record

    def _check_course(self, event: Event, record: ProposalRecord) -> None:
        before = self.latest.get(record.id)
        assert (before is None) == (event.kind == "proposal"), f"{record.id}: {event.kind}"
        if before is None:
            return
        assert record.status in NEXT[before.status], f"{before.status} -> {record.status}"
        assert (record.actor, record.digest, record.verdict, record.reverts) == (
            before.actor, before.digest, before.verdict, before.reverts
        )  # fmt: skip
        rewritten = record.proposal != before.proposal
        assert not rewritten or (record.approval and record.approval.decision == "modify")

    def _check_filed(self, event: Event, record: ProposalRecord) -> None:
        decision, interventions = record.verdict.decision, record.proposal.interventions
        assert record.status == {"allow": "queued", "ask": "pending", "deny": "denied"}[decision]
        if record.reverts is not None:
            undone = self.latest[record.reverts]
            assert undone.status in ("applied", "kept"), "undoes what is not in force"
            if record.actor.startswith("agent:"):
                assert (undone.actor, undone.reverts) == (record.actor, None), "undoes another's"
            return
        if not record.actor.startswith("agent:") or decision == "deny":
            return
        assert self.policy.autonomy != "observe", "observing is not acting"
        self._check_ledgers(event, record)
        if _is_free(interventions):
            return
        on_its_way = [
            r.id
            for r in self.latest.values()
            if r.status == "queued" or (r.receipt is not None and r.receipt.proven is None)
        ]
        assert not on_its_way, f"{record.id} while {on_its_way} are on their way"
        assert not self.at(event.seq).phases & set(self.policy.cooldown.quiet)
        if decision == "allow":
            assert self.policy.autonomy == "act"
            assert self.failed_canaries < self.policy.breaker.failed_canaries, "breaker open"
            check_rules(self.policy, interventions, record.verdict.rule)

    def _check_ledgers(self, event: Event, record: ProposalRecord) -> None:
        interventions, episode = record.proposal.interventions, record.proposal.episode
        executed = self.at(event.seq).executed
        check_ledgers(self.policy, self.deeds, interventions, episode, executed, event.time)

    def _check_decided(self, event: Event, record: ProposalRecord) -> None:
        before, approval = self.latest[record.id], record.approval
        assert approval is not None
        assert approval.digest == record.digest
        if approval.decision == "expired":
            assert (approval.actor, event.actor) == ("system", "system")
            assert record.expires_at is not None
            assert event.time >= record.expires_at, "it had time left"
            if record.status == "queued":
                assert self.policy.approval.on_expiry == "allow_reversible"
                assert {i.kind for i in record.proposal.interventions} <= REVERSIBLE
                self._check_ledgers(event, record)
        else:
            assert approval.actor.startswith("human:"), f"decided by {approval.actor}"
            assert before.status == "pending", "decided twice"
        if record.status == "queued":
            newer = [i for i in self.applied if self._changed_by_none_but_it(i, record)]
            assert not newer, f"{record.id} waited while {newer} changed the run"

    def _changed_by_none_but_it(self, other: str, waiting: ProposalRecord) -> bool:
        """The other one was filed later, nobody was asked about it, and it is no undo."""
        order, done = list(self.latest), self.latest[other]
        later = order.index(other) > order.index(waiting.id)
        on_course = all(i.kind in ON_COURSE for i in done.proposal.interventions)
        asked = done.approval is not None
        return later and not asked and not on_course and done.reverts is None

    def _check_applied(self, event: Event, record: ProposalRecord) -> None:
        proposal, old = record.proposal, self.settings
        assert self.latest[record.id].status == "queued"
        assert record.receipt is not None
        assert record.id not in self.applied, "applied twice"
        limit = proposal.not_after_step
        assert limit is None or event.step <= limit
        self._check_authority(record)
        undoes = record.reverts
        if undoes is not None:
            self._check_no_person_is_overridden(record)
            returns = old.after(proposal.interventions).equals(self._before[undoes])
            if not returns:
                check_limits(self.policy, old, proposal.interventions, at_once=False)
        elif not is_forced(record):
            check_limits(self.policy, old, proposal.interventions)
        self.applied.append(record.id)
        self._before[record.id] = old
        self.settings = old.after(proposal.interventions)
        on_course = all(i.kind in ON_COURSE for i in proposal.interventions)
        theirs = record.actor.startswith("human:") and not on_course
        if record.actor.startswith("agent:") or theirs:
            deed = (proposal.interventions, proposal.episode, self.at(event.seq).executed)
            self.deeds.append(Deed(record.actor, *deed, event.time))

    def _check_no_person_is_overridden(self, undo: ProposalRecord) -> None:
        """What a person set since is changed by a person's undoing only."""
        assert undo.reverts is not None
        if undo.actor.startswith("human:"):
            return
        own = self._set_by(undo.reverts)
        for later in self.applied[self.applied.index(undo.reverts) + 1 :]:
            done = self.latest[later]
            theirs = (done.approval.actor if done.approval else done.actor).startswith("human:")
            in_force = done.status in ("applied", "kept") and done.reverts is None
            if theirs and in_force:
                assert not own & self._set_by(later), f"{undo.id} changes what {later} set"

    def _set_by(self, proposal: str) -> set[str]:
        """The settings that it set, whether or not to another value."""
        found: set[str] = set()
        for i in self.latest[proposal].proposal.interventions:
            if isinstance(i, ScaleLR | SetLR):
                chosen = range(len(self.settings.factors)) if i.groups is None else i.groups
                found |= {f"lr of {group}" for group in chosen}
            elif isinstance(i, SetGradClip):
                found.add("clip")
        return found

    def _check_authority(self, record: ProposalRecord) -> None:
        approval, rule = record.approval, record.verdict.rule
        if record.reverts is not None:
            assert rule == "undo"
        elif record.actor.startswith("human:"):
            assert rule == "operator"
        elif record.actor == "system":
            assert rule == "approval.on_expiry"
        elif record.verdict.decision == "ask":
            assert approval is not None
            assert approval.decision != "deny"
        else:
            assert record.verdict.decision == "allow"


def is_forced(record: ProposalRecord) -> bool:
    """A person confirmed that the limits shall not hold for this one; its verdict says so."""
    verdict = record.verdict
    return record.actor.startswith("human:") and "forced" in verdict.reason
