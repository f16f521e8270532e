"""What `autopilot policy check` lists is what the guard says, and all that it can say."""

import json
from dataclasses import replace
from pathlib import Path

import drawn
import pytest
from hypothesis import assume, given, settings
from test_denials import situations
from typer.testing import CliRunner

from autopilot.cli.app import app
from autopilot.consequences import by_kind, idle_rules, standing
from autopilot.guard import Situation, review
from autopilot.policy import DEFAULT_POLICY, Policy, Rule, Where, parse_policy
from autopilot.schema import INTERVENTION_TYPES, Intervention, Proposal


@settings(max_examples=40, deadline=None)
@given(drawn.policies)
def test_every_line_is_the_guards_own_verdict(policy: Policy) -> None:
    listed = by_kind(policy)
    assert list(listed) == list(INTERVENTION_TYPES)
    for found in [*listed.values(), standing(policy)]:
        for line in found:
            again = review(policy, line.proposal, line.situation, line.history)
            assert again == line.verdict, line.case
            assert line.case
    for kind, found in listed.items():
        assert {i.kind for line in found for i in line.proposal.interventions} == {kind}
        assert all(line.verdict.rule != "capabilities" for line in found), kind


def an_agent_meets_no_verdict_that_is_not_listed(
    policy: Policy, intervention: Intervention, situation: Situation
) -> None:
    facts = replace(situation, in_flight=None, breaker_open=False, phases=frozenset())
    proposal = Proposal(interventions=(intervention,), episode="e1")
    verdict = review(policy, proposal, facts)
    assume(verdict.rule != "capabilities" and not verdict.rule.startswith(("limits", "budget")))
    listed = {(c.verdict.decision, c.verdict.rule) for c in by_kind(policy)[intervention.kind]}
    assume(not any("budget" in rule for _, rule in listed))
    assert (verdict.decision, verdict.rule) in listed


@pytest.mark.parametrize("examples", [60, pytest.param(1000, marks=pytest.mark.slow, id="many")])
def test_an_agent_meets_no_verdict_that_is_not_listed(examples: int) -> None:
    claim = an_agent_meets_no_verdict_that_is_not_listed
    drawn.hold(claim, drawn.policies, drawn.interventions, situations, examples=examples)


def test_a_rule_that_another_always_comes_before_is_named() -> None:
    policy = Policy(
        rules=(
            Rule(name="never", kinds=("stop",), verdict="deny"),
            Rule(name="in vain", kinds=("stop",), where=Where(alarm=True), verdict="allow"),
            Rule(name="pausing", kinds=("pause",), where=Where(actor="agent:a"), verdict="allow"),
        )
    )
    assert idle_rules(policy) == ["in vain"]
    assert idle_rules(parse_policy(DEFAULT_POLICY)) == []


@pytest.mark.parametrize("autonomy", ["act", "suggest", "observe"])
def test_the_command_prints_what_is_listed(tmp_path: Path, autonomy: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(DEFAULT_POLICY.replace('"act" ', f'"{autonomy}" '))
    policy = parse_policy(path.read_text())
    found = json.loads(CliRunner().invoke(app, ["policy", "check", str(path), "--json"]).stdout)
    for kind, listed in by_kind(policy).items():
        rows = [(r["decision"], r["rule"], r["case"]) for r in found["verdicts"][kind]]
        assert rows == [(c.verdict.decision, c.verdict.rule, c.case) for c in listed]
    said = " ".join(CliRunner().invoke(app, ["policy", "check", str(path)]).stdout.split())
    for line in standing(policy):
        assert line.case in said
        assert line.verdict.rule in said
