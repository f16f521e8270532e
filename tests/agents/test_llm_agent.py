"""The agent that asks a model, over a real socket: one checked answer, or a clear end."""

import asyncio
import math
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from fake_llm import FakeLLM, Raw, called, only_loopback, says
from llm_asked import KEY, LOSS, asked, record, refused, settings
from llm_window import (
    BACK,
    METRICS,
    ONSET,
    WAIT,
    answer,
    capabilities,
    change,
    episode,
    finding,
    run_info,
    waiting,
    window,
)
from pydantic import SecretStr

from autopilot.policy import parse_policy
from autopilot.ports import Consulting
from autopilot.schema import (
    Approval,
    CanaryResult,
    Evaluate,
    Evidence,
    Proposal,
    RewarmLR,
    Rollback,
    ScaleLR,
    SetGradClip,
    SetKnob,
    SetLR,
    SetOptimizer,
    Setting,
    Stop,
    Usage,
)
from autopilot_agents.llm.agent import LLMAgent
from autopilot_agents.llm.settings import Settings
from autopilot_evals.scoring.usage import card_of

__all__ = ["only_loopback"]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"AUTOPILOT_LLM_{name}", raising=False)


# --- a good answer ----------------------------------------------------------------------------


def test_an_answer_becomes_one_proposal_with_all_that_the_run_wants_to_know() -> None:
    found, llm, agent = asked([called(BACK)])
    assert isinstance(found, Proposal)
    assert found.interventions == (
        Rollback(checkpoint="s180"), ScaleLR(factor=0.25), RewarmLR(steps=20),
    )  # fmt: skip
    assert (found.episode, found.cause, found.state_version) == ("e1", "loss_spike", 3)
    assert found.not_after_step is None, "how long a question may wait is for the policy to say"
    assert found.evidence == (Evidence(metric="loss", step=195, value=9.195),)
    assert found.rationale.startswith("damaged: loss@195=9.195")
    assert len(llm.requests) == 1
    assert llm.requests[0]["tool_choice"] == "required"
    assert llm.paths == ["/v1/chat/completions"]
    assert llm.headers[0]["authorization"] == f"Bearer {KEY}"
    assert isinstance(agent, Consulting)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (change("scale_lr", factor=0.5), (ScaleLR(factor=0.5),)),
        (change("set_lr", value="plan", rewarm_steps=10),
         (SetLR(value="plan"), RewarmLR(steps=10))),
        (change("set_optimizer", name="eps", value=1e-6), (SetOptimizer(name="eps", value=1e-6),)),
        (change("set_grad_clip", max_norm=None), (SetGradClip(max_norm=None),)),
        (change("set_knob", name="loss_scale", value=1024.0),
         (SetKnob(name="loss_scale", value=1024.0),)),
        (change("evaluate"), (Evaluate(),)),
        (change("stop"), (Stop(save=True),)),
        (change("go_back", lr_to_plan=True, max_norm=1.0, skip_batches=30),
         (Rollback(skip_batches=30), SetLR(value="plan"), SetGradClip(max_norm=1.0))),
    ],
)  # fmt: skip
def test_every_action_becomes_its_interventions(call: Any, expected: Any) -> None:
    found, _, _ = asked([called(call)])
    assert isinstance(found, Proposal)
    assert found.interventions == expected


@pytest.mark.parametrize(
    ("why", "kind"), [("not_yet", "waiting"), ("benign", "benign"), ("cannot_tell", "cannot_tell")]
)
def test_waiting_is_an_answer(why: str, kind: str) -> None:
    found, _, agent = asked([called(("wait", waiting(why=why)))])
    assert refused(found, kind) == "too early to tell"
    (consultation,) = agent.consultations()
    assert (consultation.outcome, consultation.text) == (kind, "too early to tell")


def test_only_what_the_run_offers_and_the_policy_may_allow_is_offered() -> None:
    policy = parse_policy(
        '[[rules]]\nname="never"\nkinds=["stop"]\nverdict="deny"\n'
        '[[rules]]\nname="not when damaged"\nkinds=["pause"]\nwhere={damaged=true}\nverdict="deny"'
    )
    run = run_info(capabilities=capabilities(interventions=("rollback", "stop", "pause", "note")))
    with FakeLLM([called(BACK)]) as llm:
        LLMAgent(settings(llm, max_lookups=0), policy=policy).propose(window(run=run))
        assert llm.tools() == ["propose", "wait"]
        go_back, plain = changes_offered(llm)
        assert go_back.keys() == {"kind", "checkpoint", "skip_batches"}
        assert plain["kind"]["enum"] == ["pause"]


def changes_offered(llm: FakeLLM) -> list[dict[str, Any]]:
    (tool,) = [t for t in llm.requests[0]["tools"] if t["function"]["name"] == "propose"]
    offered = tool["function"]["parameters"]["properties"]["change"]
    return [one["properties"] for one in offered.get("anyOf", [offered])]


def test_where_nothing_may_be_done_only_waiting_is_offered() -> None:
    with FakeLLM([called(WAIT)]) as llm:
        agent = LLMAgent(settings(llm), policy=parse_policy('autonomy = "observe"'))
        refused(agent.propose(window()), "waiting")
        assert "propose" not in llm.tools()


def test_one_kind_of_change_alone_needs_no_alternatives() -> None:
    run = run_info(capabilities=capabilities(interventions=("rollback",)))
    with FakeLLM([called(change("go_back", checkpoint="s180"))]) as llm:
        found = LLMAgent(settings(llm)).propose(window(run=run))
        assert isinstance(found, Proposal)
        (go_back,) = changes_offered(llm)
        assert go_back["kind"]["enum"] == ["go_back"]


def test_the_policys_bounds_stand_in_the_tools() -> None:
    policy = parse_policy(
        "[limits]\nlr = { min = 1e-9, max_factor = 1.5, total_factor = [0.5, 2] }"
    )
    with FakeLLM([called(change("scale_lr", factor=1.9)), called(WAIT)]) as llm:
        agent = LLMAgent(settings(llm), policy=policy)
        refused(agent.propose(window()), "waiting")
        (factor,) = [c["factor"] for c in changes_offered(llm) if "factor" in c]
        assert (factor["minimum"], factor["maximum"]) == (0.5, 1.5)
        assert "less than or equal to 1.5" in llm.texts()


# --- what is not asked ------------------------------------------------------------------------


def test_a_benign_episode_and_a_persons_no_cost_no_question() -> None:
    with FakeLLM([called(BACK)]) as llm:
        agent = LLMAgent(settings(llm))
        refused(agent.propose(window(seen=episode(diagnosis="benign"))), "benign")
        no = Approval(decision="deny", actor="human:kim", at=0, digest="d")
        refused(agent.propose(window(history=[record(approval=no, status="denied")])), "exhausted")
        assert agent.propose(window().model_copy(update={"episode": None})).kind == "benign"
        assert llm.requests == []
        assert (agent.usage(), agent.consultations()) == (None, ())


def test_a_model_that_waits_is_asked_again_when_it_said_or_on_news() -> None:
    with FakeLLM([called(("wait", waiting(look_again_after_steps=30)))]) as llm:
        agent = LLMAgent(settings(llm))
        first = agent.propose(window())
        assert agent.propose(window(run=run_info(step=229, seq=70))) == first
        assert len(llm.requests) == 1
        agent.propose(window(run=run_info(step=230)))
        assert len(llm.requests) == 2
        agent.propose(window(run=run_info(step=231), seen=episode(findings=("F1", "F2"))))
        assert len(llm.requests) == 3


# --- answers that are sent back ------------------------------------------------------------------


BROKEN: dict[str, dict[str, Any]] = {
    "prose": says("I would go back."),
    "JSON as prose": says('{"name": "go_back", "arguments": {}}'),
    "malformed arguments": called(("propose", '{"diagnosis": "damaged", ')),
    "arguments that are a list": called(("propose", "[1, 2]")),
    "a field that is missing": called(("propose", {"diagnosis": "damaged"})),
    "a change without its parameter": called(change("scale_lr")),
    "a parameter of another change": called(change("scale_lr", factor=0.5, checkpoint="s180")),
    "a kind that is not offered": called(change("delete_run")),
    "a field that is unknown": called(("propose", {**BACK[1], "force": True})),
    "a value out of bounds": called(change("scale_lr", factor=0.0)),
    "infinity": called(("propose", '{"change": {"kind": "scale_lr", "factor": Infinity}}')),
    "an unknown action": called(("delete_run", answer())),
    "two answers": called(BACK, WAIT),
    "a cut-off answer": says("Let me think about", finish="length"),
    "nothing at all": says(""),
    "no evidence": called(change("go_back", answer(evidence=[]))),
    "a figure that was not shown": called(change("go_back", answer(evidence=["loss@150=9.1"]))),
    "a figure that was changed": called(change("go_back", answer(evidence=["loss@195=19.195"]))),
    "a median over several steps": called(change("go_back", answer(evidence=["loss@64=2.03"]))),
    "evidence without a figure": called(change("go_back", answer(evidence=["the loss is bad"]))),
    "a figure made up in prose": called(
        change("go_back", answer(rationale="as grad_norm@195=400"))
    ),
    "a checkpoint that is not there": called(change("go_back", checkpoint="s999")),
    "a knob that is not there": called(change("set_knob", name="temperature", value=1)),
    "a knob out of bounds": called(change("set_knob", name="loss_scale", value=1e30)),
    "a setting that is not there": called(change("set_optimizer", name="momentum", value=0.9)),
    "more than the policy's limit": called(
        change("set_lr", answer(evidence=["lr@195=9.195"]), value=1000.0)
    ),
    "an action with wrong arguments": called(change("call_action", name="reshuffle")),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_an_unusable_answer_is_sent_back_with_the_reason_and_can_be_repaired(broken: Any) -> None:
    found, llm, agent = asked([broken, called(BACK)])
    assert isinstance(found, Proposal)
    assert len(llm.requests) == 2
    note = llm.requests[1]["messages"][-1]
    assert note["role"] == "user"
    assert "could not be used" in note["content"]
    assert agent.course is not None
    assert agent.course.repairs == 1
    usage = agent.usage()
    assert usage is not None
    assert usage.calls == 2
    assert usage.input_tokens >= 2000, "the turn that was thrown away is paid too"


NEVER_BETTER = ("prose", "malformed arguments", "a field that is missing", "two answers",
                "an unknown action", "a cut-off answer", "a figure that was not shown")  # fmt: skip


@pytest.mark.parametrize("broken", NEVER_BETTER)
def test_after_two_repairs_it_is_over(broken: str) -> None:
    found, llm, agent = asked([BROKEN[broken]])
    refused(found, "invalid")
    assert len(llm.requests) == 3
    (consultation,) = agent.consultations()
    assert (consultation.outcome, consultation.usage.calls) == ("invalid", 3)


def test_what_was_tried_and_taken_back_is_not_tried_again() -> None:
    result = CanaryResult(
        metric="loss", bound=3.0, value=9.0, step=199, result="reverted", reason="worse"
    )
    back = (Rollback(checkpoint="s180"), ScaleLR(factor=0.25), RewarmLR(steps=20))
    tried = record(interventions=back, status="reverted", canary_result=result)
    found, llm, _ = asked([called(BACK), called(WAIT)], window(history=[tried]))
    refused(found, "waiting")
    assert "tried for this episode and taken back" in llm.texts()
    assert "canary reverted: loss 9 at step 199, bound 3" in llm.texts()


def test_a_shortened_figure_is_taken_and_stands_as_it_was_recorded() -> None:
    cited = answer(evidence=["loss@195=9.2", "lr@198=9.198"])
    found, _, _ = asked([called(change("go_back", cited))])
    assert isinstance(found, Proposal)
    assert found.evidence == (
        Evidence(metric="loss", step=195, value=9.195),
        Evidence(metric="lr", step=198, value=9.198),
    )


def test_a_figure_of_a_branch_that_was_left_or_of_a_claim_is_no_evidence() -> None:
    other = (Evidence(metric="val_loss", step=50, value=77.0),)
    for strange in (finding(branch="b2", evidence=other), finding(claimed_by="x", evidence=other)):
        call = called(change("go_back", answer(evidence=["val_loss@50=77"])))
        found, _, _ = asked([call], window(findings=[strange]))
        refused(found, "invalid")


def test_waiting_with_a_figure_that_is_wrong_still_waits_and_is_counted() -> None:
    words = "loss@3=1 but loss@195=9.195"
    found, _, agent = asked([called(("wait", waiting(rationale=words)))])
    refused(found, "waiting")
    assert agent.consultations()[0].unverified == 1


# --- look-ups ---------------------------------------------------------------------------------


def test_a_look_up_is_answered_in_a_fence_and_what_it_shows_can_be_cited() -> None:
    with FakeLLM([called(LOSS), called(BACK)]) as llm:
        agent = LLMAgent(settings(llm))
        assert isinstance(agent.propose(window()), Proposal)
        told = llm.requests[1]["messages"][-1]
        assert told["role"] == "tool"
        assert told["content"].startswith("<data-")
        assert "195,9.195" in told["content"]


def test_endless_look_ups_end() -> None:
    found, llm, agent = asked([called(LOSS)], window(names=("loss",)), max_lookups=3)
    refused(found, "invalid")
    assert agent.course is not None
    assert 1 <= agent.course.lookups <= 3
    assert "metrics" in llm.tools(0)
    assert "metrics" not in llm.tools(-1), "look-ups are offered no longer"


def test_many_look_ups_at_once_are_capped_too() -> None:
    found, llm, agent = asked([called(*[LOSS] * 9), called(BACK)], max_lookups=1)
    assert isinstance(found, Proposal)
    assert agent.course is not None
    assert agent.course.lookups == 1
    told = [m["content"] for m in llm.requests[1]["messages"] if m["role"] == "tool"]
    assert (len(told), sum("no look-ups are left" in text for text in told)) == (9, 8)


def test_an_answer_beside_a_look_up_counts() -> None:
    found, llm, _ = asked([called(LOSS, BACK)])
    assert isinstance(found, Proposal)
    assert len(llm.requests) == 1


def test_without_look_ups_none_are_offered() -> None:
    _, llm, _ = asked([called(BACK)], max_lookups=0)
    assert "metrics" not in llm.tools()
    assert "0 look-ups" in llm.requests[0]["messages"][0]["content"]


# --- where it is asked from --------------------------------------------------------------------


def test_it_can_be_asked_inside_a_running_loop_and_from_other_threads() -> None:
    with FakeLLM([called(BACK)]) as llm:
        agent = LLMAgent(settings(llm))
        found: list[Any] = []

        async def inside() -> None:
            found.append(agent.propose(window()))

        for _ in range(2):
            asyncio.run(inside())
            thread = threading.Thread(target=lambda: found.append(agent.propose(window())))
            thread.start()
            thread.join()
        assert len(found) == 4
        assert all(isinstance(answer, Proposal) for answer in found)
        assert len(llm.requests) == 4


def test_tracing_stays_off_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeLLM([called(BACK), says("wait")]) as llm, FakeLLM([Raw("{}")]) as traces:
        for name, value in (("TRACING", "true"), ("TRACING_V2", "true"), ("API_KEY", "x"),
                            ("ENDPOINT", traces.url), ("GATEWAY", traces.url)):  # fmt: skip
            monkeypatch.setenv(f"LANGSMITH_{name}", value)
        monkeypatch.setenv("LANGCHAIN_TRACING_V2", "true")
        agent = LLMAgent(settings(llm))
        assert isinstance(agent.propose(window()), Proposal)
        agent.review(record(), window())
        time.sleep(0.3)  # traces are sent from a thread
        assert traces.requests == []
        assert len(llm.requests) == 2


def test_importing_the_agents_loads_no_models_stack() -> None:
    code = (
        "import sys, autopilot_agents, autopilot_agents.prompts, autopilot_agents.consult\n"
        "import autopilot_agents.llm.agent\n"
        "from autopilot_agents.llm.settings import Settings\n"
        "autopilot_agents.llm.agent.LLMAgent(Settings(model='m', base_url='http://localhost'))\n"
        "stack = {'langchain', 'langchain_core', 'langgraph', 'langsmith', 'openai', 'tiktoken'}\n"
        "print(sorted(stack & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- what is journaled of it ---------------------------------------------------------------------


def test_a_consultation_says_what_was_asked_where_and_what_it_took() -> None:
    found, llm, agent = asked([called(LOSS), called(BACK)])
    (one,) = agent.consultations()
    assert isinstance(found, Proposal)
    assert (one.purpose, one.model, one.host, one.prompt) == (
        "diagnose", "fake-1", "127.0.0.1", "diagnose@3",
    )  # fmt: skip
    assert (one.prompt_sha, one.outcome, one.episode) == (agent.prompt_sha, "proposal", "e1")
    assert len(one.window_sha) == 64
    assert one.text == found.rationale
    assert one.usage == Usage(
        calls=2, input_tokens=2000, cached_tokens=1200, output_tokens=100, price_usd=0.0,
        seconds=one.usage.seconds,
    )  # fmt: skip
    assert agent.consultations() == ()
    assert KEY not in llm.texts()


def test_it_states_its_model_and_prompt_to_an_evaluation() -> None:
    with FakeLLM([]) as llm:
        agent = LLMAgent(settings(llm))
    card = card_of(agent)
    assert (card.name, card.model, card.prompt_sha) == ("llm", "fake-1", agent.prompt_sha)


def test_the_same_window_is_shown_byte_for_byte_the_same() -> None:
    bodies = [asked([called(BACK)])[1].requests[0] for _ in range(2)]
    assert bodies[0] == bodies[1]


# --- vendors ----------------------------------------------------------------------------------


def test_a_vendor_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_mistralai", None)
    terms = Settings(
        model="mistralai:mistral-large", api_key=SecretStr(KEY), price_in=1, price_out=1
    )
    reason = refused(LLMAgent(terms).propose(window()), "fatal")
    assert "langchain-mistralai" in reason


def test_a_vendor_that_does_not_exist_is_named() -> None:
    terms = Settings(model="acme:m1", price_in=1, price_out=1)
    assert "acme:m1" in refused(LLMAgent(terms).propose(window()), "fatal")


def test_odd_names_are_cited_as_they_are_shown_and_found_again() -> None:
    names = (*METRICS, "eval/acc top@5=best")
    shown = window(
        names=names,
        run=run_info(capabilities=capabilities(
            knobs={"my knob!": Setting(name="my knob!", value=1.0, minimum=0, maximum=9)})),
    )  # fmt: skip
    cited = answer(evidence=["eval/acc_top_5_best@199=9.199"])
    call = change("set_knob", cited, name="my_knob_", value=2.0)
    found, _, _ = asked([called(call)], shown)
    assert isinstance(found, Proposal)
    assert found.interventions == (SetKnob(name="my knob!", value=2.0),)
    assert found.evidence[0].metric == "eval/acc top@5=best"
    assert math.isclose(found.evidence[0].value, 9.199)
    assert ONSET < 199
