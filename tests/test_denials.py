"""A denial's reason is enough to propose something that the same rule lets through."""

import re
from dataclasses import replace
from typing import Any

import drawn
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from autopilot.guard import DAY, Past, Situation, review
from autopilot.policy import Policy
from autopilot.schema import (
    Episode,
    Intervention,
    Proposal,
    Rollback,
    SetKnob,
    SetLR,
    SetModule,
    SetOptimizer,
    SkipBatches,
    Verdict,
    intervention_adapter,
)

NOW = 1e6
BOUNDED = ("limits.", "budget.", "cooldown.", "in_flight")

_episodes = st.none() | st.builds(
    Episode,
    id=st.just("e1"), branch=st.just("main"), kind=st.just("loss_spike"),
    diagnosis=st.sampled_from(["damaged", "misdriven", "benign", "unknown"]),
    severity=st.just("error"), status=st.sampled_from(["open", "watching", "closed"]),
    alarm=st.booleans(), invariant_broken=st.booleans(),
    onset_step=st.just(90), last_step=st.just(100), findings=st.just(()),
)  # fmt: skip
situations = st.builds(
    Situation,
    actor=st.sampled_from(drawn.AGENTS),
    role=st.just("agent"),
    step=st.just(600),
    executed=st.just(5000),
    time=st.just(NOW),
    capabilities=st.builds(
        drawn.capabilities,
        st.lists(st.floats(0, 20) | st.sampled_from([0.1, 1.0]), min_size=2, max_size=2),
        plan=st.sampled_from([0.0, drawn.PLAN, 3.7e-4]),
        scheduled=st.sampled_from([0.0, drawn.PLAN, 30 * drawn.PLAN]),
        frozen=st.just(("frozen",)),
    ),
    episode=_episodes,
    evidence_verified=st.booleans(),
    checkpoints=st.just(
        (drawn.checkpoint("c0", 50, good=True), drawn.checkpoint("c1", 590, good=False))
    ),
    in_flight=st.none() | st.none() | st.just("P9"),
    breaker_open=st.booleans(),
    phases=st.sampled_from([frozenset(), frozenset(), frozenset({"evaluation"})]),
)
pasts = st.lists(
    st.builds(
        Past,
        actor=st.sampled_from(drawn.AGENTS),
        kinds=st.sampled_from([("rollback",), ("note",), ("scale_lr", "rewarm_lr")]),
        executed=st.integers(3500, 5000),
        time=st.floats(NOW - 1.1 * DAY, NOW),
        episode=st.sampled_from([None, "e1"]),
        skipped_batches=st.integers(0, 40),
    ),
    max_size=8,
).map(lambda found: tuple(sorted(found, key=lambda past: past.executed)))


VALUE = re.compile(r"; allowed: (\w+) (\w+) from (\S+?)(?: to (\S+))?$")
FOLLOW = re.compile(r"; allowed: set_lr value=(plan|schedule)$")
BOUNDS = re.compile(r"; allowed: value(?: from (\S+))?(?: to (\S+))?( finite)?$")
LESS = re.compile(r"; allowed: at most (\d+)")
STEPS = re.compile(r"; allowed again in (\d+) steps$")
HOURS = re.compile(r"; allowed again in (\d+) h (\d+) min$")
NEVER = ("; allowed: none, a person must act", "short of a person's force")


def what_it_allows(
    proposal: Proposal, situation: Situation, verdict: Verdict
) -> list[tuple[Proposal, Situation]]:
    """Everything that a reason says would be allowed, put into practice."""
    reason, found = verdict.reason, []
    with_ = proposal.model_copy
    if match := VALUE.search(reason):
        kind, name, low, high = match.groups()
        groups = [getattr(i, "groups", None) for i in proposal.interventions if i.kind in LR]
        values = {"groups": groups[0]} if len(groups) == 1 and kind in LR else {}
        for end in filter(None, (low, high)):
            instead = intervention_adapter.validate_python({"kind": kind, name: end, **values})
            found.append((with_(update={"interventions": (instead,)}), situation))
    if match := FOLLOW.search(reason):
        found.append((with_(update={"interventions": (SetLR(value=match[1]),)}), situation))  # type: ignore[arg-type]
    if match := LESS.search(reason):
        count = int(match[1])
        less: tuple[Intervention, ...] = (SkipBatches(count=count),)
        if "rollbacks" in verdict.rule:
            less = (Rollback(checkpoint="c0"),) * count
        found.append((with_(update={"interventions": less}), situation))
    if match := STEPS.search(reason):
        found.append((proposal, replace(situation, executed=situation.executed + int(match[1]))))
    if match := HOURS.search(reason):
        later = situation.time + 3600 * int(match[1]) + 60 * int(match[2])
        found.append((proposal, replace(situation, time=later)))
    if reason.endswith("; allowed again once it is read back"):
        found.append((proposal, replace(situation, in_flight=None)))
    if reason.endswith("; allowed again after it"):
        found.append((proposal, replace(situation, phases=frozenset())))
    if reason.endswith(NEVER):
        person = replace(situation, role="operator", actor="human:kim", forced=True)
        found.append((proposal, person))
    return found


LR = ("scale_lr", "set_lr")


def what_a_denial_says_is_allowed_is_not_denied_by_the_same_rule(
    policy: Policy, proposal: Proposal, situation: Situation, history: tuple[Past, ...]
) -> None:
    verdict = review(policy, proposal, situation, history)
    assume(verdict.decision == "deny" and verdict.rule.startswith(BOUNDED))
    event(verdict.rule)
    ways = what_it_allows(proposal, situation, verdict)
    assert ways, verdict
    for instead, where in ways:
        followed = review(policy, instead, where, history)
        assert followed.decision != "deny" or followed.rule != verdict.rule, (verdict, followed)
        if verdict.rule.startswith("limits.lr"):
            assert not followed.rule.startswith("limits.lr"), (verdict, followed)


@pytest.mark.parametrize("examples", [150, pytest.param(8000, marks=pytest.mark.slow, id="many")])
def test_what_a_denial_says_is_allowed_is_not_denied_by_the_same_rule(examples: int) -> None:
    claim = what_a_denial_says_is_allowed_is_not_denied_by_the_same_rule
    drawn.hold(claim, drawn.policies, drawn.proposals, situations, pasts, examples=examples)


_bounded = st.one_of(
    st.builds(SetKnob, name=st.just("temperature"), value=st.floats() | st.integers()),
    st.builds(SetKnob, name=st.just("free"), value=st.floats()),
    st.builds(SetModule, module=st.just("m"), name=st.just("p"), value=st.floats(0, 1e300)),
    st.builds(SetOptimizer, name=st.just("eps"), value=st.floats(0, 1e300)),
)


@settings(max_examples=300, deadline=None)
@given(situations, _bounded)
def test_what_is_out_of_bounds_is_denied_with_the_nearest_values_that_are_not(
    situation: Situation, wrong: Any
) -> None:
    policy = Policy(default="allow")
    verdict = review(policy, Proposal(interventions=(wrong,)), situation)
    assume(verdict.rule == "capabilities")
    match = BOUNDS.search(verdict.reason)
    assert match, verdict
    for end in match.groups()[:2]:
        value = 1.0 if end is None else float(end)
        instead = Proposal(interventions=(wrong.model_copy(update={"value": value}),))
        assert review(policy, instead, situation).rule != "capabilities", verdict
