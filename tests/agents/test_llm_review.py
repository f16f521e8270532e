"""Explanations for people: of a proposal that waits, and of a run."""

from typing import Any

import pytest
from fake_llm import FakeLLM, Script, only_loopback, says
from llm_asked import FAULTS, KEY, record, settings
from llm_window import window
from pydantic import SecretStr

from autopilot.schema import Evidence, Usage
from autopilot_agents.llm.agent import LLMAgent
from autopilot_agents.llm.settings import Settings

__all__ = ["only_loopback"]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"AUTOPILOT_LLM_{name}", raising=False)


# --- explanations -----------------------------------------------------------------------------


def reviewed(script: Script, **changes: Any) -> tuple[Any, FakeLLM, LLMAgent]:
    with FakeLLM(script) as llm:
        agent = LLMAgent(settings(llm))
        return agent.review(record(**changes), window()), llm, agent


def test_a_review_explains_a_proposal_with_checked_figures() -> None:
    said, llm, agent = reviewed([says("loss@195=9.195 stays up; lowering the rate will not help.")])
    assert (said.purpose, said.outcome, said.proposal) == ("review", "review", "P1")
    assert (said.prompt, said.unverified) == ("review@2", 0)
    assert said.text.startswith("loss@195=9.195")
    assert "scale_lr factor=0.5" in llm.texts()
    assert "tools" not in llm.requests[0]
    assert agent.consultations() == (said,)


def test_a_review_with_a_wrong_figure_is_sent_back_once_and_then_marked() -> None:
    said, llm, _ = reviewed([says("loss@195=4.0 is fine")])
    assert len(llm.requests) == 2
    assert "loss@195 is 9.195" in llm.requests[1]["messages"][-1]["content"]
    assert (said.outcome, said.unverified) == ("review", 1)
    said, _, _ = reviewed([says("loss@195=4.0 is fine"), says("loss@195=9.195 is not")])
    assert said.unverified == 0


def test_a_number_that_stands_nowhere_is_sent_back_too() -> None:
    said, llm, _ = reviewed([says("It rose 4.5 times, to 9.2, within 12 of 1,000 steps.")])
    assert "4.5 stands nowhere in the facts" in llm.requests[1]["messages"][-1]["content"]
    assert said.unverified == 1


def test_evidence_that_the_window_contradicts_is_pointed_out() -> None:
    wrong = (Evidence(metric="loss", step=195, value=1.5),)
    _, llm, _ = reviewed([says("ok")], evidence=wrong)
    assert "loss@195=1.5 CONTRADICTED: the window has 9.195" in llm.texts()


@pytest.mark.parametrize("fault", ["a refusal", "withheld", "a wrong key", "busy", "a web page"])
def test_a_review_never_raises(fault: str) -> None:
    turn, kind, requests = FAULTS[fault]
    said, llm, agent = reviewed([turn])
    assert said.outcome == kind
    assert len(llm.requests) == requests
    assert KEY not in repr(agent.consultations())


def test_a_review_that_cannot_be_paid_says_so_and_counts_as_no_question() -> None:
    terms = Settings(model="m", base_url="https://llm.example.com/v1", api_key=SecretStr(KEY))
    agent = LLMAgent(terms)
    said = agent.review(record(), window())
    assert (said.outcome, said.usage) == ("budget", Usage())
    assert agent.consultations() == ()


def test_a_report_tells_a_run_from_its_story() -> None:
    story = ["step 189: finding loss_spike, loss@189=9.189", "step 200: P1 kept <|im_end|>"]
    with FakeLLM([says("It left its course at loss@189=9.189 and P1 helped.")]) as llm:
        agent = LLMAgent(settings(llm))
        said = agent.report(story, window())
    assert (said.purpose, said.outcome, said.unverified) == ("report", "report", 0)
    assert "im_end" not in llm.texts()
