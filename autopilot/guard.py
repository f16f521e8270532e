"""The guard: judges a proposal against the policy. Pure; the same inputs give the same verdict.

The order is fixed: what the run can do at all, then hard limits, then (for agents) autonomy,
budgets and cool-downs, then the policy's rules: deny before ask before allow.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from autopilot.budgets import Ledger
from autopilot.limits import check_limits
from autopilot.policy import Budget, Policy, Rule
from autopilot.schema import (
    Capabilities,
    CheckpointInfo,
    Episode,
    Intervention,
    Proposal,
    Rollback,
    SkipBatches,
    StartBranch,
    SwitchBranch,
    Verdict,
)
from autopilot.supported import check_supported, find_checkpoint

Role = Literal["viewer", "agent", "operator"]

AGENT, PERSON = "agent:", "human:"
"""How the name of an actor begins."""

HARMLESS = frozenset({"note", "evaluate", "save_checkpoint"})
"""Kinds that leave the course of training as it is; they use no budget and start no cool-down."""

NOT_THE_COURSE = HARMLESS | {"pause", "resume"}
"""Kinds after which training goes on exactly as it would have."""

GOES_BACK = frozenset({"rollback", "branch", "switch_branch"})
"""Kinds that may take the run to another state; each uses the rollbacks' budget."""

DAY = 86_400.0
PER_STEPS = 1000
"""Steps over which ``budget.interventions.per_1000_steps`` counts."""


@dataclass(frozen=True)
class Past:
    """What the ledgers need to know of one applied intervention.

    Budgets count an agent's; a cool-down follows a person's too where it changed the course.

    Attributes:
        executed: Step boundaries that had passed in this process when it was applied; unlike the
            step it never goes back.
    """

    actor: str
    kinds: tuple[str, ...]
    executed: int
    time: float
    episode: str | None = None
    skipped_batches: int = 0


@dataclass(frozen=True)
class Situation:
    """The facts of the run that a proposal is judged against.

    Attributes:
        executed: Step boundaries passed; see :class:`Past`.
        episode: The episode that the proposal answers, if the run knows it.
        evidence_verified: There is evidence, and every figure of it stands in the journal.
        in_flight: The proposal that is queued, or applied and not yet read back.
        forced: A person confirmed that the policy's limits shall not hold for this one.
        undoing: The proposal takes back what was applied.
    """

    actor: str
    role: Role
    step: int
    executed: int
    time: float
    capabilities: Capabilities
    episode: Episode | None = None
    evidence_verified: bool = False
    checkpoints: tuple[CheckpointInfo, ...] = ()
    in_flight: str | None = None
    breaker_open: bool = False
    phases: frozenset[str] = field(default_factory=frozenset)
    forced: bool = False
    undoing: bool = False


def review(
    policy: Policy, proposal: Proposal, situation: Situation, history: tuple[Past, ...] = ()
) -> Verdict:
    """Judge a proposal.

    Returns:
        The verdict, the rule that decided (a rule's name, or the policy key), and a reason. That of
        a denial by limits, bounds, budget or cool-down ends with what would be allowed, in one of
        these forms: ``allowed: KIND NAME from LOW to HIGH`` (or ``from LOW``, or ``=VALUE``),
        ``allowed: at most N``, ``allowed again in N steps`` (or ``H h M min``, or ``once …``,
        ``after …``).
    """
    verdict = _check_timely(proposal, situation) or review_limits(policy, proposal, situation)
    if verdict is not None:
        return verdict
    if situation.role == "operator":
        reason = f"a person's own intervention, {_standing(policy, proposal, situation)}"
        return Verdict(decision="allow", rule="operator", reason=reason)
    return (
        _check_autonomy(policy)
        or _check_budgets(policy, proposal, situation, history)
        or _check_cooldown(policy, proposal, situation, history)
        or _apply_rules(policy, proposal, situation)
    )


def review_limits(policy: Policy, proposal: Proposal, situation: Situation) -> Verdict | None:
    """What no actor may leave, judged alone: capabilities and limits; None where all hold."""
    return _check_capabilities(proposal, situation) or (
        None if _may_force(situation) else _check_limits(policy, proposal, situation)
    )


def _may_force(situation: Situation) -> bool:
    return situation.forced and situation.role == "operator"


def _standing(policy: Policy, proposal: Proposal, situation: Situation) -> str:
    """How a person's intervention that is allowed stands to the limits."""
    if not situation.forced:
        return "within limits"
    passed = _check_limits(policy, proposal, situation)
    return f"forced past {passed.rule}" if passed else "forced, within limits"


def _deny(rule: str, reason: str) -> Verdict:
    return Verdict(decision="deny", rule=rule, reason=reason)


def _check_timely(proposal: Proposal, situation: Situation) -> Verdict | None:
    limit = proposal.not_after_step
    if limit is not None and situation.step > limit:
        return _deny(
            "not_after_step",
            f"the run is at step {situation.step}, the proposal was good until {limit}; look again",
        )
    return None


def _check_capabilities(proposal: Proposal, situation: Situation) -> Verdict | None:
    capabilities = situation.capabilities
    for intervention in proposal.interventions:
        problem = check_supported(intervention, capabilities, situation.checkpoints)
        if problem:
            return _deny("capabilities", problem)
        if isinstance(intervention, StartBranch):  # the next one finds it there
            branches = {**capabilities.branches, intervention.name: None}
            capabilities = capabilities.model_copy(update={"branches": branches})
    return None


def _check_limits(policy: Policy, proposal: Proposal, situation: Situation) -> Verdict | None:
    broken = check_limits(
        policy.limits,
        proposal.interventions,
        situation.capabilities,
        undoing=situation.undoing,
    )
    return _deny(*broken) if broken is not None else None


# --- autonomy, budgets, cool-down --------------------------------------------------------------


def _check_autonomy(policy: Policy) -> Verdict | None:
    if policy.autonomy == "observe":
        return _deny("autonomy", "the policy lets agents observe only; a person may act")
    return None


def _counts(kinds: Iterable[str]) -> bool:
    return any(kind not in HARMLESS for kind in kinds)


def _kinds(proposal: Proposal) -> tuple[str, ...]:
    return tuple(i.kind for i in proposal.interventions)


def changes_course(interventions: Iterable[Intervention]) -> bool:
    """Training goes on otherwise than it would have."""
    return any(intervention.kind not in NOT_THE_COURSE for intervention in interventions)


def batches_skipped(interventions: Iterable[Intervention]) -> int:
    """Batches that the interventions leave out, all together."""
    total = 0
    for intervention in interventions:
        if isinstance(intervention, Rollback):
            total += intervention.skip_batches
        elif isinstance(intervention, SkipBatches):
            total += intervention.count
    return total


def _goings_back(kinds: Iterable[str]) -> int:
    return sum(kind in GOES_BACK for kind in kinds)


def _check_budgets(
    policy: Policy, proposal: Proposal, situation: Situation, history: tuple[Past, ...]
) -> Verdict | None:
    if not _counts(_kinds(proposal)):
        return None
    for ledger in _ledgers(policy.budget, proposal, situation, history):
        if ledger.overdrawn:
            return _deny(f"budget.{ledger.name}", ledger.reason())
    return None


def _ledgers(
    budget: Budget, proposal: Proposal, situation: Situation, history: tuple[Past, ...]
) -> Iterator[Ledger]:
    counted = [p for p in history if p.actor.startswith(AGENT) and _counts(p.kinds)]
    steps = [PER_STEPS - (situation.executed - past.executed) for past in counted]
    day = [(past, DAY - (situation.time - past.time)) for past in counted]
    today = [(past, end) for past, end in day if end > 0]
    recent, acts = [(1, float(end)) for end in steps if end > 0], [(1, end) for _, end in today]
    back = [(_goings_back(past.kinds), end) for past, end in today]
    skipped = [(past.skipped_batches, end) for past, end in today]
    going, skipping = _goings_back(_kinds(proposal)), batches_skipped(proposal.interventions)
    often = budget.interventions
    yield Ledger("interventions.per_1000_steps", "steps", recent, 1, often.per_1000_steps)
    yield Ledger("interventions.per_day", "seconds", acts, 1, often.per_day)
    yield Ledger("rollbacks.per_day", "seconds", back, going, budget.rollbacks.per_day)
    yield Ledger(
        "skipped_batches.per_day", "seconds", skipped, skipping, budget.skipped_batches.per_day
    )


def _check_cooldown(
    policy: Policy, proposal: Proposal, situation: Situation, history: tuple[Past, ...]
) -> Verdict | None:
    if not _counts(_kinds(proposal)):
        return None
    if situation.in_flight:
        return _deny(
            "in_flight",
            f"{situation.in_flight} is on its way, and only one may be at a time; allowed again "
            "once it is read back",
        )
    for phase in policy.cooldown.quiet:
        if phase in situation.phases:
            return _deny(
                "cooldown.quiet", f"nothing is accepted during {phase}; allowed again after it"
            )
    last = next((past for past in reversed(history) if _counts(past.kinds)), None)
    if last is None:
        return None
    same = proposal.episode is not None and proposal.episode == last.episode
    name = "same_episode" if same else "steps"
    needed = policy.cooldown.same_episode if same else policy.cooldown.steps
    passed = situation.executed - last.executed
    if passed < needed:
        return _deny(
            f"cooldown.{name}",
            f"{passed} steps since the last intervention, {needed} are needed; "
            f"allowed again in {needed - passed} steps",
        )
    return None


# --- rules ----------------------------------------------------------------------------------


def _apply_rules(policy: Policy, proposal: Proposal, situation: Situation) -> Verdict:
    worst: Verdict | None = None
    for intervention in proposal.interventions:
        verdict = _judge(policy, intervention, situation)
        if worst is None or _RANK[verdict.decision] > _RANK[worst.decision]:
            worst = verdict
    assert worst is not None, "a proposal has at least one intervention"
    if worst.decision != "allow" or not _counts(_kinds(proposal)):
        return worst
    if policy.autonomy == "suggest":
        return Verdict(decision="ask", rule="autonomy", reason="the policy lets agents suggest")
    if situation.breaker_open:
        return Verdict(
            decision="ask",
            rule="breaker",
            reason="interventions made things worse before; a person decides until the breaker "
            "is reset",
        )
    return worst


_RANK = {"allow": 0, "ask": 1, "deny": 2}


def _judge(policy: Policy, intervention: Intervention, situation: Situation) -> Verdict:
    unmet: list[str] = []
    for decision in ("deny", "ask", "allow"):
        for rule in policy.rules:
            if rule.verdict != decision or not _covers(rule, intervention):
                continue
            missing = _missing_fact(rule, intervention, situation)
            if missing is None:
                return Verdict(
                    decision=rule.verdict,
                    rule=rule.name,
                    reason=f"{intervention.kind}: {rule.name}",
                )
            if decision == "allow":
                unmet.append(f"“{rule.name}” would allow it if {missing}")
    reason = f"{intervention.kind}: " + ("; ".join(unmet) or "no rule speaks of it")
    return Verdict(decision=policy.default, rule="default", reason=reason)


def _covers(rule: Rule, intervention: Intervention) -> bool:
    return intervention.kind in rule.kinds or "*" in rule.kinds


def _missing_fact(rule: Rule, intervention: Intervention, situation: Situation) -> str | None:
    """The first fact that the rule asks for and that does not hold, in words; None if all do."""
    where, episode = rule.where, situation.episode
    alarm = episode is not None and episode.status != "closed" and episode.alarm
    broken = episode is not None and episode.status != "closed" and episode.invariant_broken
    diagnosis = episode.diagnosis if episode else "unknown"
    facts: tuple[tuple[object, object, str], ...] = (
        (where.alarm, alarm or broken, "the run's own detectors raised an alarm"),
        (where.invariant_broken, broken, "an invariant was broken"),
        (where.diagnosis, diagnosis, f"the diagnosis were {where.diagnosis}, it is {diagnosis}"),
        (where.damaged, diagnosis == "damaged", f"damaged were {where.damaged}"),
        (
            where.evidence_verified,
            situation.evidence_verified,
            "it cited evidence that stands in the journal",
        ),
    )
    for wanted, found, words in facts:
        if wanted is not None and wanted != found:
            return words if wanted is not False else f"not: {words}"
    if where.actor is not None and not situation.actor.startswith(where.actor):
        return f"the actor were {where.actor}"
    target = _target(intervention, situation)
    return _missing_target(rule, target, situation) if target is not None else None


def _target(intervention: Intervention, situation: Situation) -> str | None:
    """The state that an intervention would go to; None where it stays at the present one."""
    match intervention:
        case Rollback() | StartBranch():
            return intervention.checkpoint
        case SwitchBranch():
            return situation.capabilities.branches.get(intervention.name)
        case _:
            return None


def _missing_target(rule: Rule, target: str, situation: Situation) -> str | None:
    checkpoint = find_checkpoint(target, situation.checkpoints)
    if checkpoint is None:
        return "the checkpoint existed"
    if rule.where.target == "good" and not checkpoint.good:
        return "it went back to a state known to be good"
    back = situation.step - checkpoint.step
    most = rule.where.steps_back_max
    if most is not None and back > most:
        return f"it went back at most {most} steps, not {back}"
    return None
