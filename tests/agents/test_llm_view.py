"""What a model is shown: short, stable, clean; and what it may look up besides."""

import asyncio
import json
from typing import Any

import pytest
from control.bench import OPEN, RULES, Bench
from fake_llm import only_loopback
from llm_window import METRICS, STEP, capabilities, checkpoint, finding, run_info, window
from pydantic import ValidationError

from autopilot.control import PlaneRun
from autopilot.policy import Policy, parse_policy, read_policy
from autopilot.schema import (
    INTERVENTION_TYPES,
    Evidence,
    Proposal,
    ProposalRecord,
    ScaleLR,
    Setting,
    Verdict,
)
from autopilot.window import build_window
from autopilot_agents.llm.actions import CHANGES, PLAIN, UNOFFERED, Propose, answers
from autopilot_agents.llm.figures import Figures, citations, figures_of
from autopilot_agents.llm.forms import form
from autopilot_agents.llm.lookups import LookUps
from autopilot_agents.llm.policy_words import plainly_denied
from autopilot_agents.llm.tokens import bound_tokens
from autopilot_agents.llm.view import WINDOW_TOKENS, window_text

__all__ = ["only_loopback"]

POLICY = read_policy(None)

GOLDEN = """\
RUN gpt-small: 1000 steps planned; agents may act; learning-rate plan declared
LIMITS learning rate 0.02 to 16 times its plan in all, at most 4 times up at once; clipping not \
below 0.05
ACTIONS of the script: reshuffle(seed: int)

NOW step 200, running, branch main
SETTINGS lr 0.01; lr_factor_max 1; lr_factor_min 1; lr_plan 0.01; optimizer.eps 1e-08
KNOB loss_scale (float) 1.049e+06, default 1024, from 1 to 1.678e+07

EPISODE e1: loss_spike, diagnosis of the rules damaged, error, alarm; began at step 189, last seen \
at 200
because it did not recover
fingerprint: update_ratio 0.2

FINDINGS, oldest first
189 loss_spike [alarm] on loss, score 9: “loss left its course” loss@189=9.189

STATISTICS over 200 rows: last, median±MAD, robust z of the last, range, slope/100
loss: 9.2, 2.03±0.02, 2.3e+02, 2..9.2, 0.058
grad_norm: 9.2, 2.03±0.02, 2.3e+02, 2..9.2, 0.045

TABLE, one step a row, or medians over several steps
step,loss,grad_norm
1-64,2.03,2.03
65-128,2.03,2.03
129-160,2.03,2.03
161-176,2.02,2.02
177-184,2.02,2.03
185-188,2.04,2.04
189,9.189,9.189
190,9.19,9.19
"""


def test_a_window_reads_like_this() -> None:
    assert window_text(window(names=("loss", "grad_norm")), POLICY).startswith(GOLDEN)


def test_a_window_stays_within_its_tokens() -> None:
    held = [checkpoint(s, good=s < 189) for s in range(0, 200, 10)]
    tried = [record(f"P{i}") for i in range(12)]
    found = [finding(step=s, evidence=EVIDENCE) for s in range(180, 200)]
    shown = window_text(window(held=held, history=tried, findings=found), POLICY)
    assert bound_tokens(window_text(window(), POLICY)) <= 1200
    assert bound_tokens(shown) <= WINDOW_TOKENS
    assert "CHECKPOINTS (13 more)" in shown
    assert "good, before the onset: s0, s140, s150, s160, s170, s180" in shown
    assert "AFTER the onset: s190" in shown


def test_the_first_finding_of_each_sort_stands_for_those_that_follow() -> None:
    other = finding(kind="grad_spike", metric="grad_norm", step=191, evidence=())
    found = [*(finding(step=s, evidence=EVIDENCE[:1]) for s in range(180, 190)), other]
    shown = window_text(window(findings=found), POLICY)
    assert "180 loss_spike [alarm] on loss, score 9: “loss left its course” loss@189=9.189; " \
           "10 times, last at 189, score 9: loss@189=9.189" in shown  # fmt: skip
    assert "191 grad_spike [alarm] on grad_norm" in shown
    assert shown.count("loss left its course") == 2


def test_a_plan_that_is_followed_is_said_once() -> None:
    shown = window(names=("loss", "lr", "lr_planned", "update_skipped"))
    same = {s.metric: s for s in shown.summaries}["lr"]
    zero = same.model_copy(update=dict.fromkeys(("last", "minimum", "maximum", "mad"), 0.0))
    named = {"lr_planned": same, "update_skipped": zero}
    summaries = tuple(
        named.get(s.metric, s).model_copy(update={"metric": s.metric}) for s in shown.summaries
    )
    told = window_text(shown.model_copy(update={"summaries": summaries}), POLICY)
    assert "lr_planned: as lr" in told
    assert "lr_planned is as lr\nstep,loss,lr,update_skipped" in told
    assert "update_skipped: 0 throughout" in told


EVIDENCE = tuple(Evidence(metric="loss", step=s, value=9.0 + 0.001 * s) for s in (189, 190, 191))


def record(name: str) -> ProposalRecord:
    proposal = Proposal(interventions=(ScaleLR(factor=0.5),), episode="e1")
    return ProposalRecord(
        id=name, proposal=proposal, actor="agent:rules", digest="d", filed_at=0, filed_step=190,
        status="denied", verdict=Verdict(decision="deny", rule="cooldown.steps", reason="too soon"),
    )  # fmt: skip


def test_any_number_of_metrics_knobs_and_words_stays_capped() -> None:
    names = (*METRICS, *(f"extra/{i}" for i in range(60)))
    knobs = {f"k{i}": Setting(name=f"k{i}", value=1.0, description="w " * 500) for i in range(60)}
    run = run_info(name="n" * 5000, capabilities=capabilities(knobs=knobs))
    shown = window_text(
        window(names=names, run=run, findings=[finding(message="m" * 9000)]), POLICY
    )
    assert bound_tokens(shown) <= WINDOW_TOKENS
    assert "more metrics: look them up)" in shown


def test_what_stays_the_same_comes_before_what_changes() -> None:
    early, late = (
        window_text(window(run=run_info(step=step, seq=step, state_version=step)), POLICY)
        for step in (200, 260)
    )
    common = next(i for i, (a, b) in enumerate(zip(early, late, strict=False)) if a != b)
    assert early[:common].endswith("NOW step 2")


def test_medians_and_statistics_cannot_be_cited() -> None:
    figures = figures_of(window())
    (fine, median) = citations("loss@195=9.195 loss@64=2.03")
    assert figures.find(fine) is not None
    assert figures.find(median) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("loss@195=9.2.", ["loss@195=9.2"]),
        ("(val/loss@3=-1.5e-3; lr@4=.5)", ["val/loss@3=-0.0015", "lr@4=0.5"]),
        ("grad_norm@5=inf, loss@6=NaN", ["grad_norm@5=inf", "loss@6=nan"]),
        ("loss@=3 @5=2 loss@x=3 loss@5", []),
        ("mail me@127=", []),
    ],
)
def test_figures_are_found_in_prose(text: str, found: list[str]) -> None:
    assert [str(c) for c in citations(text)] == found


# --- actions -------------------------------------------------------------------------------------


EVERY_KIND = tuple(INTERVENTION_TYPES)


def test_every_intervention_can_be_chosen_or_is_left_out_for_a_reason() -> None:
    offered = {change.needs for change in CHANGES} | PLAIN.keys()
    assert offered | UNOFFERED == INTERVENTION_TYPES.keys()
    assert not offered & UNOFFERED
    names = [tool.__name__ for tool in answers(EVERY_KIND, POLICY.limits, capabilities())]
    assert names == ["propose", "wait"]


def test_reasons_come_before_the_change_they_justify() -> None:
    order = ["diagnosis", "rationale", "evidence", "expected_effect", "change"]
    assert list(Propose.model_fields) == order
    propose, _ = answers(EVERY_KIND, POLICY.limits, capabilities())
    assert list(form(propose)["properties"]) == order


def test_bounds_of_the_policy_hold_in_the_form_already() -> None:
    propose, _ = answers(("scale_lr",), POLICY.limits, capabilities())
    said: dict[str, Any] = {
        "diagnosis": "misdriven", "rationale": "r", "evidence": ["a@1=1"], "expected_effect": "e"
    }  # fmt: skip
    assert propose(**said, change={"kind": "scale_lr", "factor": 4.0})
    for factor in (4.01, 0.01, float("nan"), float("inf"), -1):
        with pytest.raises(ValidationError):
            propose(**said, change={"kind": "scale_lr", "factor": factor})


def test_an_optimizers_settings_are_offered_as_the_run_has_them() -> None:
    held = {f"optimizer.{n}": Setting(name=n, value=None) for n in ("betas", "amsgrad")}
    can = capabilities(settings=held)
    propose, _ = answers(("set_optimizer",), POLICY.limits, can)
    change = form(propose)["properties"]["change"]["properties"]
    assert change["name"]["enum"] == ["betas", "amsgrad"]
    assert [one["type"] for one in change["value"]["anyOf"]] == ["array", "boolean", "string"]


def test_a_form_says_no_more_than_is_needed_to_fill_it_in() -> None:
    for tool in answers(EVERY_KIND, POLICY.limits, capabilities()):
        told = json.dumps(form(tool))
        for unneeded in ("title", "$ref", "default", "additionalProperties", "100000", "oneOf"):
            assert unneeded not in told


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("", set()),
        ('autonomy = "observe"', set(INTERVENTION_TYPES)),
        ('default = "deny"\n[[rules]]\nname="n"\nkinds=["note"]\nverdict="allow"',
         set(INTERVENTION_TYPES) - {"note"}),
        ('[[rules]]\nname="n"\nkinds=["*"]\nverdict="deny"', set(INTERVENTION_TYPES)),
        ('[[rules]]\nname="n"\nkinds=["stop"]\nwhere={damaged=true}\nverdict="deny"', set()),
        ("[budget]\nrollbacks = { per_day = 0 }", {"rollback"}),
        ("[budget]\ninterventions = { per_1000_steps = 0, per_day = 9 }",
         set(INTERVENTION_TYPES) - {"note", "evaluate", "save_checkpoint"}),
    ],
)  # fmt: skip
def test_what_a_policy_denies_whatever_the_facts(text: str, denied: set[str]) -> None:
    policy = parse_policy(text)
    assert {kind for kind in INTERVENTION_TYPES if plainly_denied(policy, kind)} == denied


# --- look-ups ---------------------------------------------------------------------------------


def looked(name: str, bench: Bench | None = None, **given: Any) -> tuple[str, Figures]:
    run = PlaneRun(bench.plane, RULES) if bench is not None else None
    shown = window() if run is None else build_window(run, next(iter(run.episodes()), None))
    figures = Figures()
    lookups = LookUps(shown, POLICY, figures, run)
    look = lookups.offered().get(name)
    if look is None:
        return str(getattr(lookups, name)(**given)), figures
    arguments = look.arguments(**given).model_dump()
    return asyncio.run(look.ask(**arguments)), figures


def flown() -> Bench:
    bench = Bench(OPEN)
    bench.rows(300)
    bench.break_schedule()
    bench.propose(ScaleLR(factor=0.5))
    return bench


def test_a_slice_of_a_live_run_reaches_beyond_the_window_and_can_be_cited() -> None:
    text, figures = looked("metrics", flown(), metrics=["loss", "lr"], first_step=5, last_step=60)
    assert "(19 of 56 rows)" in text
    assert "\n5,2.02,0.01\n" in text
    (cited,) = citations("loss@5=2.02")
    assert figures.find(cited) == Evidence(metric="loss", step=5, value=2.02)
    assert figures.recorded("loss", 6) is None, "what was not shown cannot be cited"


def test_a_slice_without_a_run_has_what_the_window_holds() -> None:
    text, _ = looked("metrics", metrics=["loss"], first_step=0, last_step=STEP)
    assert "\n189,9.189\n" in text
    assert "no such metric; there are: grad_norm" in looked(
        "metrics", metrics=["secrets"], first_step=0, last_step=9
    )[0]  # fmt: skip
    assert "rows go from step 189 to 200" in looked(
        "metrics", metrics=["loss"], first_step=0, last_step=9
    )[0]  # fmt: skip


def test_findings_checkpoints_and_what_was_tried_come_from_the_run() -> None:
    bench = flown()
    assert "schedule_fault" in looked("findings", bench)[0]
    assert looked("checkpoints", bench)[0].startswith("c0: step 0, good")
    assert "scale_lr factor=0.5" in looked("tried", bench)[0]
    assert looked("findings", bench, episode="e99")[0].startswith("no findings of that episode")


def test_the_policy_is_told_in_its_own_order() -> None:
    text, _ = looked("rule", kind="rollback")
    assert text.split("\n")[0] == "autonomy: act"
    assert "allow: “back to a good state with the cause fixed" in text
    assert text.split("\n")[-1] == "otherwise: ask"
    assert looked("rule", kind="delete")[0] == "no such kind: delete"


def test_knobs_are_told_with_their_bounds() -> None:
    assert "KNOB loss_scale (float) 1.049e+06, default 1024, from 1 to" in looked("knobs")[0]


@pytest.mark.parametrize("name", ["metrics", "findings", "checkpoints", "tried", "rule", "knobs"])
def test_every_look_up_is_short(name: str) -> None:
    given = {
        "metrics": {"metrics": ["loss", "lr", "lr_planned"], "first_step": 0, "last_step": 400},
        "rule": {"kind": "rollback"},
    }.get(name, {})
    text, _ = looked(name, flown(), **given)
    assert 0 < bound_tokens(text) <= 1200


def test_the_default_limits_are_those_of_the_default_policy() -> None:
    assert Policy().limits == POLICY.limits
