"""The guard: whatever is proposed, by whomever, the limits and the budgets hold."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import drawn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.guard import (
    DAY,
    HARMLESS,
    Past,
    Role,
    Situation,
    batches_skipped,
    changes_course,
    review,
)
from autopilot.policy import (
    DEFAULT_POLICY,
    Budget,
    Cooldown,
    InterventionBudget,
    Policy,
    Rule,
    Where,
    parse_policy,
)
from autopilot.schema import (
    Capabilities,
    CheckpointInfo,
    Episode,
    Evaluate,
    Intervention,
    Note,
    Pause,
    Proposal,
    RewarmLR,
    Rollback,
    ScaleLR,
    SetGradClip,
    SetKnob,
    SetLR,
    SetOptimizer,
    Setting,
    SkipBatches,
    StartBranch,
    Stop,
)

PLAN = 0.01
TIGHT = """
default = "{default}"
[limits]
lr = {{ min = 2e-3, max_factor = 2.0, total_factor = [0.05, 4.0] }}
grad_clip = {{ min = 0.5 }}
[budget]
interventions = {{ per_1000_steps = 3, per_day = 8 }}
rollbacks = {{ per_day = 2 }}
skipped_batches = {{ per_day = 50 }}
[cooldown]
steps = 40
same_episode = 5
"""
OFFERED = (
    "scale_lr", "set_lr", "rewarm_lr", "set_optimizer", "set_grad_clip", "rollback",
    "skip_batches", "evaluate", "pause", "stop", "note", "set_knob",
)  # fmt: skip


def capabilities(factors: list[float], *, scheduled: float = PLAN, plan: float = PLAN) -> Any:
    figures: dict[str, float] = {
        "lr": plan * factors[0],
        "lr_plan": plan,
        "lr_scheduled": scheduled,
        "lr_factor_min": min(factors),
        "lr_factor_max": max(factors),
        "optimizer.groups": len(factors),
        "optimizer.eps": 1e-8,
    }
    return Capabilities(
        interventions=OFFERED,
        settings={name: Setting(name=name, value=value) for name, value in figures.items()},
        knobs={"temperature": Setting(name="temperature", value=1.0, minimum=0.5, maximum=2.0)},
        lr_plan_declared=True,
    )


def checkpoint(name: str, step: int, *, good: bool = True) -> CheckpointInfo:
    return CheckpointInfo(id=name, step=step, branch="main", kind="snapshot", good=good)


def episode(diagnosis: Any = "damaged", **changes: Any) -> Episode:
    given: dict[str, Any] = {
        "id": "e1", "branch": "main", "kind": "loss_spike", "diagnosis": diagnosis,
        "severity": "error", "status": "open", "alarm": True, "invariant_broken": False,
        "onset_step": 90, "last_step": 100, "findings": (),
    }  # fmt: skip
    return Episode(**{**given, **changes})


def situation(role: Role = "agent", **changes: Any) -> Situation:
    usual = Situation(
        actor="agent:rules" if role == "agent" else "human:kim",
        role=role,
        step=100,
        executed=5000,
        time=1e6,
        capabilities=capabilities([1.0]),
        episode=episode(),
        evidence_verified=True,
        checkpoints=(checkpoint("c50", 50), checkpoint("c90", 90, good=False)),
    )
    return replace(usual, **changes)


def propose(*interventions: Intervention, **values: Any) -> Proposal:
    return Proposal(interventions=interventions, episode="e1", **values)


# --- no sequence leaves the limits ---------------------------------------------------------------

groups = st.none() | st.sampled_from([(0,), (1,), (0, 1)])
factors = st.floats(0.001, 1000, allow_nan=False)
interventions = st.one_of(
    st.builds(
        ScaleLR, factor=factors | st.sampled_from([0.1, 0.25, 0.5, 1.9, 2.0, 4.0]), groups=groups
    ),
    st.builds(SetLR, value=st.sampled_from(["plan", "schedule"]), groups=groups),
    st.builds(SetLR, value=factors.map(lambda f: f * PLAN), groups=groups),
    st.builds(SetGradClip, max_norm=st.none() | st.floats(1e-3, 10)),
    st.builds(RewarmLR, steps=st.integers(0, 50)),
    st.builds(Rollback, skip_batches=st.integers(0, 40)),
    st.builds(SkipBatches, count=st.integers(1, 40)),
    st.just(Pause()),
    st.just(Note(text="so")),
)
proposals = st.builds(
    Proposal,
    interventions=st.lists(interventions, min_size=1, max_size=4).map(tuple),
    episode=st.sampled_from([None, "e1", "e2"]),
)
turns = st.lists(
    st.tuples(
        st.sampled_from(["agent:rules", "agent:model", "human:kim"]),
        proposals,
        st.integers(0, 120),
        st.sampled_from([1.0, 600.0, DAY / 3]),
    ),
    max_size=40,
)


@dataclass
class SimulatedRun:
    """A run in figures: what is in force, and what was done to it."""

    factors: list[float] = field(default_factory=lambda: [1.0, 1.0])
    clip: float | None = None
    executed: int = 0
    time: float = 0.0
    history: list[Past] = field(default_factory=list)
    back_on_plan: set[int] = field(default_factory=set)

    def situation(self, actor: str) -> Situation:
        return situation(
            "agent" if actor.startswith("agent:") else "operator",
            actor=actor,
            executed=self.executed,
            time=self.time,
            capabilities=capabilities(self.factors),
        )

    def apply(self, actor: str, proposal: Proposal) -> None:
        self.back_on_plan.clear()
        for intervention in proposal.interventions:
            match intervention:
                case ScaleLR(factor=factor):
                    self._set(intervention.groups, lambda old, f=factor: old * f)
                case SetLR(value=str()):
                    self._set(intervention.groups, lambda old: 1.0, back=True)
                case SetLR(value=value):
                    self._set(intervention.groups, lambda old, v=value: v / PLAN)
                case SetGradClip(max_norm=norm):
                    self.clip = norm
                case _:
                    pass
        kinds = tuple(i.kind for i in proposal.interventions)
        if actor.startswith("agent:") or changes_course(proposal.interventions):
            skipped = batches_skipped(proposal.interventions)
            self.history.append(
                Past(actor, kinds, self.executed, self.time, proposal.episode, skipped)
            )

    def _set(self, chosen: tuple[int, ...] | None, change: Any, *, back: bool = False) -> None:
        for group in range(len(self.factors)) if chosen is None else chosen:
            self.factors[group] = change(self.factors[group])
            (self.back_on_plan.add if back else self.back_on_plan.discard)(group)


def check_limits(policy: Policy, run: SimulatedRun) -> None:
    low, high = policy.limits.lr.total_factor
    for factor in run.factors:
        assert low * 0.999 <= factor <= high * 1.001
        assert factor * PLAN >= policy.limits.lr.min * 0.999
    assert run.clip is None or run.clip >= policy.limits.grad_clip.min


def check_budgets(policy: Policy, run: SimulatedRun) -> None:
    budget, cooldown = policy.budget, policy.cooldown
    everybody = [past for past in run.history if set(past.kinds) - HARMLESS]
    counted = [past for past in everybody if past.actor.startswith("agent:")]
    for last in counted:
        steps = [p for p in counted if 0 <= last.executed - p.executed < 1000]
        day = [p for p in counted if 0 <= last.time - p.time < DAY]
        assert len(steps) <= budget.interventions.per_1000_steps
        assert len(day) <= budget.interventions.per_day
        assert sum(p.kinds.count("rollback") for p in day) <= budget.rollbacks.per_day
        assert sum(p.skipped_batches for p in day) <= budget.skipped_batches.per_day
    for before, after in itertools.pairwise(everybody):
        if after.actor.startswith("human:"):
            continue  # a person waits for nobody, and agents wait for them
        same = after.episode is not None and after.episode == before.episode
        needed = cooldown.same_episode if same else cooldown.steps
        assert after.executed - before.executed >= needed


@settings(max_examples=300, deadline=None)
@given(turns=turns, default=st.sampled_from(["allow", "ask"]), approves=st.booleans())
def test_no_sequence_leaves_the_limits_or_the_budgets(
    turns: list[tuple[str, Proposal, int, float]], default: str, approves: bool
) -> None:
    policy = parse_policy(TIGHT.format(default=default))
    run = SimulatedRun()
    for actor, proposal, steps, seconds in turns:
        verdict = review(policy, proposal, run.situation(actor), tuple(run.history))
        if verdict.decision == "ask" and approves:
            verdict = review(policy, proposal, run.situation("human:kim"), tuple(run.history))
        if verdict.decision == "allow":
            before = list(run.factors)
            run.apply(actor, proposal)
            most = policy.limits.lr.max_factor * 1.001
            for group, (old, new) in enumerate(zip(before, run.factors, strict=True)):
                assert new <= most * old or group in run.back_on_plan
        check_limits(policy, run)
        check_budgets(policy, run)
        run.executed, run.time = run.executed + steps, run.time + seconds


NOT_KEYS = {"capabilities", "not_after_step", "in_flight", "operator"}


def names_its_reason(policy: Policy, rule: str) -> bool:
    """The rule is one of the policy's, one of its keys, or a fact of the run."""
    if rule in NOT_KEYS or rule in {r.name for r in policy.rules}:
        return True
    place: Any = policy
    for part in rule.split("."):
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True


situations = st.builds(
    situation,
    st.sampled_from(["agent", "operator"]),
    episode=st.none()
    | st.builds(
        episode,
        st.sampled_from(["damaged", "misdriven", "benign", "unknown"]),
        alarm=st.booleans(),
        invariant_broken=st.booleans(),
        status=st.sampled_from(["open", "watching", "closed"]),
    ),
    evidence_verified=st.booleans(),
    breaker_open=st.booleans(),
    in_flight=st.none() | st.just("P9"),
    phases=st.sampled_from([frozenset(), frozenset({"evaluation"}), frozenset({"warmup"})]),
    capabilities=st.builds(
        capabilities,
        st.lists(st.floats(0, 50), min_size=2, max_size=2),
        scheduled=st.sampled_from([0.0, PLAN, 30 * PLAN]),
        plan=st.sampled_from([0.0, PLAN]),
    ),
    forced=st.booleans(),
)
policies = st.sampled_from(
    [
        parse_policy(DEFAULT_POLICY),
        parse_policy(DEFAULT_POLICY.replace('"act" ', '"suggest" ')),
        parse_policy(DEFAULT_POLICY.replace('"act" ', '"observe" ')),
        parse_policy(TIGHT.format(default="deny")),
        parse_policy(TIGHT.format(default="allow")),
    ]
)
histories = st.lists(
    st.builds(
        Past,
        actor=st.just("agent:rules"),
        kinds=st.sampled_from([("rollback",), ("note",), ("scale_lr", "rewarm_lr")]),
        executed=st.integers(3500, 5000),
        time=st.floats(1e6 - 2 * DAY, 1e6),
        episode=st.sampled_from([None, "e1"]),
    ),
    max_size=6,
).map(tuple)


@settings(max_examples=300, deadline=None)
@given(policies, proposals, situations, histories)
def test_every_verdict_names_its_reason_and_is_the_same_again(
    policy: Policy, proposal: Proposal, facts: Situation, history: tuple[Past, ...]
) -> None:
    verdict = review(policy, proposal, facts, history)
    assert names_its_reason(policy, verdict.rule), verdict.rule
    assert verdict.reason
    assert len(verdict.reason.splitlines()) == 1
    assert review(policy, proposal, facts, history) == verdict


@settings(max_examples=200, deadline=None)
@given(policies, proposals, situations, histories)
def test_observing_denies_every_agent_and_suggesting_asks(
    policy: Policy, proposal: Proposal, facts: Situation, history: tuple[Past, ...]
) -> None:
    facts = replace(facts, role="agent", actor="agent:rules")
    observing = policy.model_copy(update={"autonomy": "observe"})
    assert review(observing, proposal, facts, history).decision == "deny"
    if {i.kind for i in proposal.interventions} - HARMLESS:
        suggesting = policy.model_copy(update={"autonomy": "suggest"})
        assert review(suggesting, proposal, facts, history).decision != "allow"
        broken = replace(facts, breaker_open=True)
        assert review(policy, proposal, broken, history).decision != "allow"


# --- single facts ------------------------------------------------------------------------------


def rules(*verdicts: str, **policy: Any) -> Policy:
    found = tuple(Rule(name=f"{v} it", kinds=("*",), verdict=v) for v in verdicts)  # type: ignore[arg-type]
    return Policy(rules=found, **policy)


@pytest.mark.parametrize("order", [("allow", "ask", "deny"), ("deny", "allow", "ask")])
def test_deny_beats_ask_beats_allow_in_whatever_order_they_stand(order: tuple[str, ...]) -> None:
    verdict = review(rules(*order), propose(Pause()), situation())
    assert (verdict.decision, verdict.rule) == ("deny", "deny it")
    without = tuple(v for v in order if v != "deny")
    assert review(rules(*without), propose(Pause()), situation()).decision == "ask"


def test_the_strictest_intervention_decides_for_all() -> None:
    policy = Policy(
        rules=(
            Rule(name="scaling", kinds=("scale_lr",), verdict="allow"),
            Rule(name="no end", kinds=("stop",), verdict="deny"),
        )
    )
    verdict = review(policy, propose(ScaleLR(factor=0.5), Stop()), situation())
    assert (verdict.decision, verdict.rule) == ("deny", "no end")


@pytest.mark.parametrize(
    ("where", "changes", "said"),
    [
        (Where(alarm=True), {"episode": None}, "raised an alarm"),
        (Where(alarm=True), {"episode": episode(status="closed")}, "raised an alarm"),
        (Where(invariant_broken=True), {}, "an invariant was broken"),
        (Where(diagnosis="misdriven"), {}, "it is damaged"),
        (Where(damaged=True), {"episode": episode("benign")}, "damaged were True"),
        (Where(evidence_verified=True), {"evidence_verified": False}, "stands in the journal"),
        (Where(actor="agent:model"), {}, "the actor were agent:model"),
        (Where(alarm=False), {}, "not: the run's own detectors"),
    ],
)
def test_a_fact_that_does_not_hold_is_named(where: Where, changes: Any, said: str) -> None:
    policy = Policy(rules=(Rule(name="r", kinds=("pause",), where=where, verdict="allow"),))
    verdict = review(policy, propose(Pause()), situation(**changes))
    assert (verdict.decision, verdict.rule) == ("ask", "default")
    assert "“r” would allow it if" in verdict.reason
    assert said in verdict.reason


@pytest.mark.parametrize(
    ("target", "where", "decision"),
    [
        ("c50", Where(target="good"), "allow"),
        ("last_good", Where(target="good"), "allow"),
        ("c90", Where(target="good"), "ask"),
        ("c90", Where(target="any"), "allow"),
        ("c50", Where(steps_back_max=49), "ask"),
        ("c50", Where(steps_back_max=50), "allow"),
        ("gone", Where(), "deny"),
    ],
)
def test_how_far_and_where_to_it_goes_back(target: str, where: Where, decision: str) -> None:
    policy = Policy(rules=(Rule(name="r", kinds=("rollback",), where=where, verdict="allow"),))
    verdict = review(policy, propose(Rollback(checkpoint=target)), situation())
    assert verdict.decision == decision


@pytest.mark.parametrize(
    ("proposed", "in_force", "rule"),
    [
        ((ScaleLR(factor=0.01),), [1.0], "limits.lr.total_factor"),
        ((ScaleLR(factor=3.0),), [2.0], "limits.lr.total_factor"),
        ((ScaleLR(factor=2.5),), [1.0], "limits.lr.max_factor"),
        ((ScaleLR(factor=1.9), ScaleLR(factor=1.9)), [1.0], "limits.lr.max_factor"),
        ((ScaleLR(factor=0.15),), [1.0], "limits.lr.min"),
        ((SetLR(value=PLAN * 3),), [1.0], "limits.lr.max_factor"),
        ((SetLR(value=PLAN * 5),), [4.0], "limits.lr.total_factor"),
        ((SetLR(value=PLAN, groups=(0,)),), [0.25, 1.0], "limits.lr.max_factor"),
        ((ScaleLR(factor=4.0), SetLR(value="plan", groups=(0,))), [1.0, 1.0], "limits.lr"),
        ((ScaleLR(factor=0.1), SetLR(value="plan", groups=(0,))), [1.0, 1.0], "limits.lr.min"),
        ((SetGradClip(max_norm=0.1),), [1.0], "limits.grad_clip.min"),
    ],
)
def test_a_limit_holds_for_everybody_unless_a_person_forces_it(
    proposed: tuple[Intervention, ...], in_force: list[float], rule: str
) -> None:
    policy = parse_policy(TIGHT.format(default="allow"))
    caps = capabilities(in_force)
    for role in ("agent", "operator"):
        verdict = review(policy, propose(*proposed), situation(role, capabilities=caps))
        assert verdict.decision == "deny", role
        assert verdict.rule.startswith(rule)
    forced = situation("operator", capabilities=caps, forced=True)
    assert review(policy, propose(*proposed), forced).decision == "allow"
    pretended = situation("agent", capabilities=caps, forced=True)
    assert review(policy, propose(*proposed), pretended).decision == "deny"


@pytest.mark.parametrize("value", ["plan", "schedule"])
@pytest.mark.parametrize("in_force", [0.05, 0.5, 3.9])
def test_the_way_back_to_plan_or_schedule_is_open_from_everywhere(
    value: Any, in_force: float
) -> None:
    policy = parse_policy(TIGHT.format(default="allow"))
    caps = capabilities([in_force, 1.0])
    for groups in (None, (0,)):
        proposal = propose(SetLR(value=value, groups=groups))
        assert review(policy, proposal, situation(capabilities=caps)).decision == "allow"


@pytest.mark.parametrize("scheduled", [0.0, 30 * PLAN])
def test_handing_back_to_a_schedule_that_left_the_limits_is_denied(scheduled: float) -> None:
    caps = capabilities([1.0], scheduled=scheduled)
    verdict = review(
        parse_policy(TIGHT.format(default="allow")),
        propose(SetLR(value="schedule")),
        situation(capabilities=caps),
    )
    assert (verdict.decision, verdict.rule) == ("deny", "limits.lr.total_factor")


def test_where_the_plan_is_zero_only_the_plan_itself_can_be_judged() -> None:
    policy = parse_policy(TIGHT.format(default="allow"))
    facts = situation(capabilities=capabilities([1.0], plan=0.0, scheduled=0.0))
    assert review(policy, propose(SetLR(value=0.1)), facts).rule == "limits.lr.total_factor"
    assert review(policy, propose(SetLR(value="plan")), facts).decision == "allow"


@pytest.mark.parametrize("plan", [0.0, PLAN])
def test_a_learning_rate_too_small_for_a_float_is_judged_too(plan: float) -> None:
    facts = situation(capabilities=capabilities([5e-324, 1.0], plan=plan))
    verdict = review(Policy(default="allow"), propose(ScaleLR(factor=2.0)), facts)
    assert (verdict.decision, verdict.rule) == ("deny", "limits.lr.total_factor")


def test_what_the_run_does_not_offer_is_denied_to_everybody() -> None:
    for role in ("agent", "operator"):
        for wrong in (
            SetKnob(name="nope", value=1),
            SetKnob(name="temperature", value=9.0),
            SetKnob(name="temperature", value=float("nan")),
            SetOptimizer(name="momentum", value=0.9),
            ScaleLR(factor=0.9, groups=(7,)),
        ):
            verdict = review(Policy(default="allow"), propose(wrong), situation(role, forced=True))
            assert (verdict.decision, verdict.rule) == ("deny", "capabilities"), wrong


def test_a_proposal_is_good_until_its_step() -> None:
    policy = Policy(default="allow")
    assert review(policy, propose(Pause(), not_after_step=100), situation()).decision == "allow"
    late = review(policy, propose(Pause(), not_after_step=99), situation())
    assert (late.decision, late.rule) == ("deny", "not_after_step")


def test_one_is_in_flight_at_a_time_and_quiet_phases_are_kept() -> None:
    policy = Policy(default="allow")
    busy = review(policy, propose(Pause()), situation(in_flight="P7"))
    assert (busy.decision, busy.rule) == ("deny", "in_flight")
    assert "P7" in busy.reason
    quiet = review(policy, propose(Pause()), situation(phases=frozenset({"evaluation"})))
    assert (quiet.decision, quiet.rule) == ("deny", "cooldown.quiet")
    for harmless in (Evaluate(), Note(text="x")):
        assert review(policy, propose(harmless), situation(in_flight="P7")).decision == "allow"
    assert (
        review(policy, propose(Pause()), situation("operator", in_flight="P7")).rule == "operator"
    )


def test_an_agent_waits_after_a_person_s_change_which_uses_none_of_its_budget() -> None:
    policy = Policy(
        default="allow",
        cooldown=Cooldown(steps=100, same_episode=10),
        budget=Budget(interventions=InterventionBudget(per_1000_steps=1, per_day=1)),
    )
    theirs = Past("human:kim", ("scale_lr",), situation().executed - 60, situation().time - 9)
    soon = review(policy, propose(ScaleLR(factor=0.5)), situation(), (theirs,))
    assert (soon.decision, soon.rule) == ("deny", "cooldown.steps")
    assert soon.reason.endswith("allowed again in 40 steps")
    long_ago = replace(theirs, executed=theirs.executed - 40)
    later = review(policy, propose(ScaleLR(factor=0.5)), situation(), (long_ago,) * 5)
    assert later.decision == "allow"


def test_what_changes_nothing_passes_a_suggesting_policy_and_an_open_breaker() -> None:
    policy = parse_policy(DEFAULT_POLICY.replace('"act" ', '"suggest" '))
    verdict = review(policy, propose(Evaluate()), situation(breaker_open=True))
    assert verdict.decision == "allow"


def test_a_person_needs_no_rule_and_no_budget() -> None:
    history = tuple(Past("agent:rules", ("rollback",), 5000, 1e6) for _ in range(50))
    policy = parse_policy(DEFAULT_POLICY.replace('"act" ', '"observe" '))
    verdict = review(policy, propose(Stop()), situation("operator", breaker_open=True), history)
    assert (verdict.decision, verdict.rule) == ("allow", "operator")


def test_one_proposal_cannot_begin_two_branches_of_one_name() -> None:
    """The shrunk counter-example of a sequence that broke the journal's rule."""
    whole = drawn.capabilities([1.0])
    here = situation(capabilities=whole, actor="human:kim", role="operator")
    once, twice = StartBranch(name="left"), StartBranch(name="left")
    assert review(Policy(), propose(once), here).decision == "allow"
    refused = review(Policy(), propose(once, twice), here)
    assert (refused.decision, refused.rule) == ("deny", "capabilities")
    assert "there is a branch 'left' already" in refused.reason
