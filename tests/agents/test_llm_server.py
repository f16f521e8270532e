"""A model's server that fails, what it may cost, and what it must not learn or tell."""

import logging
import socket
import time
from typing import Any

import pytest
from fake_llm import FakeLLM, Raw, called, only_loopback, problem, refuses, says
from llm_asked import FAULTS, KEY, LOSS, asked, refused, settings
from llm_window import BACK, run_info, waiting, window
from pydantic import SecretStr

from autopilot.schema import Proposal
from autopilot_agents.llm.agent import LLMAgent
from autopilot_agents.llm.settings import Settings

__all__ = ["only_loopback"]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"AUTOPILOT_LLM_{name}", raising=False)


# --- a server that fails ------------------------------------------------------------------------


@pytest.mark.parametrize(("turn", "kind", "requests"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_of_the_server_ends_as_no_proposal(turn: Any, kind: str, requests: int) -> None:
    found, llm, agent = asked([turn])
    reason = refused(found, kind)
    assert reason
    assert len(llm.requests) == requests
    (consultation,) = agent.consultations()
    assert (consultation.outcome, consultation.text) == (kind, reason)


def test_a_fault_after_a_look_up_ends_the_same_way() -> None:
    found, llm, _ = asked([called(LOSS), problem(503, retry_after="0")])
    refused(found, "transient")
    assert len(llm.requests) == 1 + 3


def test_a_server_that_comes_back_is_answered() -> None:
    found, llm, _ = asked([problem(503, retry_after="0"), called(BACK)])
    assert isinstance(found, Proposal)
    assert len(llm.requests) == 2


def test_a_server_that_is_not_there_is_transient() -> None:
    with FakeLLM([]) as llm:
        gone = settings(llm)
    refused(LLMAgent(gone).propose(window()), "transient")


def test_a_hanging_server_is_left_at_the_deadline() -> None:
    asked([called(BACK)])  # the stack is loaded
    began = time.monotonic()
    found, _, agent = asked([Raw(delay=60)], deadline=3.0)
    assert "no answer within 3 s" in refused(found, "transient")
    assert time.monotonic() - began < 20
    usage = agent.usage()
    assert usage is not None
    assert usage.input_tokens > 1000, "it may have been at work: what it read is counted"


def test_a_slow_server_that_hangs_on_every_try_is_left_at_the_deadline() -> None:
    found, llm, _ = asked([Raw(delay=60)], timeout=1.0, deadline=4.0)
    refused(found, "transient")
    assert 1 <= len(llm.requests) <= 3


# --- secrets ------------------------------------------------------------------------------------

ECHO = [problem(401, f"bad key {KEY}"), problem(500, f"Authorization: Bearer {KEY}"),
        refuses(f"your key {KEY}"), says(f"{KEY} and then sk-{KEY[3:12]}***"),
        Raw(f'{{"error": "{KEY}"}}')]  # fmt: skip


@pytest.mark.parametrize("turn", ECHO)
def test_the_key_is_in_no_text(turn: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    found, llm, agent = asked([turn])
    said = f"{found!r} {agent.consultations()!r} {llm.texts()} {vars(agent)!r} {caplog.text}"
    assert KEY not in said
    assert KEY[3:12] not in f"{found!r} {caplog.text}"


def test_a_key_that_the_model_repeats_is_not_journaled() -> None:
    found, _, agent = asked([called(("wait", waiting(rationale=f"the key is {KEY}")))])
    assert KEY not in f"{found!r} {agent.consultations()!r}"


# --- money ------------------------------------------------------------------------------------


def test_a_budget_that_is_spent_asks_nobody() -> None:
    with FakeLLM([called(BACK)]) as llm:
        agent = LLMAgent(settings(llm, price_in=1.0, price_out=2.0))
        spent = window(run=run_info(llm_usd_spent=5.0))
        assert "$5.00 of the $5.00" in refused(agent.propose(spent), "budget")
        assert llm.requests == []
        assert isinstance(agent.propose(window(run=run_info(llm_usd_spent=4.99))), Proposal)
        usage = agent.usage()
        assert usage is not None
        assert usage.price_usd == pytest.approx((1000 * 1.0 + 50 * 2.0) / 1e6)


def test_an_own_server_costs_nothing_and_no_budget_stops_it() -> None:
    with FakeLLM([called(BACK)]) as llm:
        agent = LLMAgent(settings(llm))
        assert isinstance(agent.propose(window(run=run_info(llm_usd_per_day=0.0))), Proposal)
        assert agent.usage() == agent.consultations()[0].usage
        usage = agent.usage()
        assert usage is not None
        assert usage.price_usd == 0.0


def test_an_unknown_price_asks_nobody() -> None:
    terms = Settings(
        model="house-7b", base_url="https://llm.example.com/v1", api_key=SecretStr(KEY)
    )
    reason = refused(LLMAgent(terms).propose(window()), "budget")
    assert "the price of house-7b is unknown" in reason
    assert "AUTOPILOT_LLM_PRICE_IN" in reason


def test_a_server_that_does_not_count_is_counted_for() -> None:
    _, _, agent = asked([called(BACK, usage=False)], price_in=1.0, price_out=1.0)
    usage = agent.usage()
    assert usage is not None
    assert usage.input_tokens > 2000
    assert usage.output_tokens > 10
    assert usage.price_usd is not None
    assert usage.price_usd > 0


# --- the breaker ------------------------------------------------------------------------------


class SetClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_fatal_fault_opens_the_breaker_until_it_cooled_down() -> None:
    clock = SetClock()
    with FakeLLM([problem(404, "no such model"), called(BACK)]) as llm:
        agent = LLMAgent(settings(llm), clock=clock)
        refused(agent.propose(window()), "fatal")
        assert "left alone" in refused(agent.propose(window()), "fatal")
        assert len(llm.requests) == 1
        clock.now = 301
        assert isinstance(agent.propose(window()), Proposal)


def test_three_transient_faults_in_a_row_open_the_breaker() -> None:
    with FakeLLM([Raw("[]")]) as llm:
        agent = LLMAgent(settings(llm), clock=SetClock())
        for _ in range(5):
            refused(agent.propose(window()), "protocol")
        assert len(llm.requests) == 3


def test_these_tests_reach_nothing_but_this_machine() -> None:
    with socket.socket() as one, pytest.raises(AssertionError, match=r"192\.0\.2\.1"):
        one.connect(("192.0.2.1", 80))
