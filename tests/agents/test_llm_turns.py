"""A model's turns, journaled and played again: the same code comes to the same answer."""

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from fake_llm import FakeLLM, Raw, called, only_loopback, problem, refuses, says
from llm_asked import FAULTS, KEY, LOSS, asked, record, settings
from llm_window import BACK, WAIT, answer, change, finding, run_info, window
from pydantic import SecretStr

from autopilot.errors import BadInput
from autopilot.schema import Consultation, Event, NoProposal, Proposal, Window
from autopilot.schema.consultations import Session
from autopilot_agents.llm.agent import LLMAgent
from autopilot_agents.llm.played import PlayedAgent
from autopilot_agents.llm.session import LONGEST_SESSION, window_of

__all__ = ["only_loopback"]

Answered = Proposal | NoProposal


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"AUTOPILOT_LLM_{name}", raising=False)


def journaled(*consultations: Consultation) -> list[Event]:
    """What a journal holds of them, through JSON as it is written."""
    return [
        Event.model_validate_json(
            Event(
                seq=number, time=0.0, step=200, branch="main", kind="consultation",
                actor="agent:llm", body={"consultation": one.model_dump(mode="json")},
            ).model_dump_json()
        )
        for number, one in enumerate(consultations, 1)
    ]  # fmt: skip


def flown(script: Any, shown: Window | None = None, **terms: Any) -> tuple[Answered, Consultation]:
    found, _, agent = asked(script, shown, **terms)
    (one,) = agent.consultations()
    return found, one


def played(asked_for: Consultation, here: Window | None = None) -> Answered:
    return PlayedAgent(journaled(asked_for)).propose(here or window())


SCRIPTS: dict[str, Any] = {
    "a proposal": [called(BACK)],
    "one wait": [called(WAIT)],
    "a look-up and what it showed cited": [
        called(("metrics", {"metrics": ["loss"], "first_step": 0, "last_step": 200})),
        called(change("go_back", answer(evidence=["loss@193=9.193"]), checkpoint="s180")),
    ],
    "look-ups at once": [called(LOSS, LOSS, ("rule", {"kind": "rollback"})), called(BACK)],
    "a look-up with wrong arguments": [called(("metrics", {"metrics": []})), called(BACK)],
    "prose, then a proposal": [says("I would go back."), called(BACK)],
    "broken JSON, then a proposal": [called(("propose", '{"diagnosis": ')), called(BACK)],
    "a list, then a proposal": [called(("propose", "[1, 2]")), called(BACK)],
    "infinity, then a proposal": [
        called(("propose", '{"change": {"kind": "scale_lr", "factor": Infinity}}')), called(BACK),
    ],
    "two answers, then one": [called(BACK, WAIT), called(BACK)],
    "a wrong figure, for ever": [called(change("go_back", answer(evidence=["loss@195=4"])))],
    "no counting of tokens": [called(BACK, usage=False)],
    "a refusal": [refuses()],
    "a fault after a look-up": [called(LOSS), problem(503, retry_after="0")],
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_recorded_turns_give_the_same_answer_byte_for_byte(script: Any) -> None:
    found, one = flown(script)
    again = played(one)
    assert type(again) is type(found)
    assert again.model_dump_json() == found.model_dump_json()


@pytest.mark.parametrize("fault", ["a wrong key", "busy for long", "a web page", "no choices"])
def test_a_fault_of_the_server_is_played_as_it_was(fault: str) -> None:
    turn, kind, _ = FAULTS[fault]
    found, one = flown([turn])
    again = played(one)
    assert isinstance(again, NoProposal)
    assert again.kind == kind
    assert again == found


def test_a_deadline_that_passed_passes_again() -> None:
    asked([called(BACK)])  # the stack is loaded
    found, one = flown([Raw(delay=60)], deadline=0.5)
    assert played(one) == found


def test_a_turn_is_journaled_whole_with_what_was_asked() -> None:
    _, one = flown([called(LOSS, text="I look."), called(BACK)])
    assert one.session is not None
    first, second = one.session.turns
    assert first.reply is not None
    (call,) = first.reply.calls
    assert (first.reply.content, first.reply.finish) == ("I look.", "tool_calls")
    assert call.id is not None
    assert call.id.startswith("call_")
    assert (call.name, json.loads(call.arguments)) == LOSS
    assert (first.reply.input_tokens, first.reply.cached_tokens) == (1000, 600)
    assert first.asked.system == second.asked.system
    assert first.asked.messages != second.asked.messages
    (looked,) = one.session.looked_up
    assert "195,9.195" in looked.text
    assert window_of(one.session) == window()


def test_a_review_is_journaled_with_its_turns_and_without_a_window() -> None:
    with FakeLLM([says("loss@195=4.0 is fine"), says("loss@195=9.195 is not")]) as llm:
        said = LLMAgent(settings(llm)).review(record(), window())
    assert said.session is not None
    assert [t.reply.content for t in said.session.turns if t.reply] == [
        "loss@195=4.0 is fine", "loss@195=9.195 is not",
    ]  # fmt: skip
    assert said.session.window == ""


def test_no_key_is_in_what_is_journaled_and_the_answer_is_the_same_all_the_same() -> None:
    words = f"the key is {KEY}, so loss@195=9.195 stays up"
    found, one = flown(
        [called(LOSS, text=KEY), called(change("evaluate", answer(rationale=words)))]
    )
    assert KEY not in one.model_dump_json()
    assert played(one).model_dump_json() == found.model_dump_json()


def test_a_key_figure_is_no_key() -> None:
    found, _ = flown([called(("wait", {"rationale": "the key figures rise", "why": "not_yet"}))])
    assert isinstance(found, NoProposal)
    assert found.reason == "the key figures rise"


def test_what_is_too_long_to_be_journaled_is_said_and_not_played() -> None:
    _, one = flown([called(BACK, text="w" * LONGEST_SESSION)])
    assert one.session is not None
    assert one.session.turns == ()
    assert "at most 64,000 are recorded" in one.session.left_out
    again = played(one)
    assert isinstance(again, NoProposal)
    assert again.kind == "turns_differ"
    assert "at most 64,000 are recorded" in again.reason


# --- what changed is named ----------------------------------------------------------------------


def with_session(one: Consultation, **changes: Any) -> Consultation:
    assert one.session is not None
    return one.model_copy(update={"session": one.session.model_copy(update=changes)})


def repacked(session: Session, **changes: Any) -> str:
    shown = window_of(session)
    assert shown is not None
    text = shown.model_copy(update=changes).model_dump_json()
    return base64.b64encode(zlib.compress(text.encode())).decode()


CHANGED: dict[str, tuple[Callable[[Session], dict[str, Any]], str]] = {
    "the prompt": (lambda session: {"max_lookups": 3}, "request 1: the prompt changed"),
    "the tools": (
        lambda session: {"window": repacked(session, run=run_info(
            capabilities=run_info().capabilities.model_copy(update={"interventions": ("stop",)})))},
        "request 1: the tools changed",
    ),
    "the window": (
        lambda session: {"window": repacked(session, findings=(finding(score=8.0),))},
        "request 1: what was shown and said changed",
    ),
    "a window of another version": (lambda session: {"window": "AAAA"}, "another version"),
    "fewer turns": (lambda session: {"turns": session.turns[:1]}, "request 2 was never made"),
    "more turns": (lambda session: {"turns": session.turns * 2}, "2 of 4 recorded requests"),
    "no look-ups": (lambda session: {"looked_up": ()}, "the look-up metrics was never made"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), CHANGED.values(), ids=CHANGED.keys())
def test_what_differs_from_the_recording_is_named_and_nothing_is_proposed(
    changes: Callable[[Session], dict[str, Any]], words: str
) -> None:
    _, one = flown([called(LOSS), called(BACK)])
    assert one.session is not None
    again = played(with_session(one, **changes(one.session)))
    assert isinstance(again, NoProposal)
    assert again.kind == "turns_differ"
    assert words in again.reason
    assert again.episode == "e1"


def test_figures_that_are_not_those_of_the_recording_are_named() -> None:
    _, one = flown([called(BACK)])
    here = window()
    rows = tuple(
        row.model_copy(update={"values": {**row.values, "loss": 7.0}})
        if row.last_step == 195 else row
        for row in here.table
    )  # fmt: skip
    again = played(one, here.model_copy(update={"table": rows}))
    assert isinstance(again, NoProposal)
    assert again.kind == "turns_differ"
    assert "shown loss@195=9.195, the recording has 7" in again.reason


# --- which turns belong to what -----------------------------------------------------------------


def test_questions_about_an_episode_are_played_in_order_at_their_steps() -> None:
    later = window(run=run_info(step=260))
    with FakeLLM([called(WAIT), called(BACK)]) as llm:
        agent = LLMAgent(settings(llm))
        first, second = agent.propose(window()), agent.propose(later)
    pilot = PlayedAgent(journaled(*agent.consultations()))
    before = pilot.propose(window(run=run_info(step=199)))
    assert isinstance(before, NoProposal)
    assert (before.kind, before.reason) == (
        "waiting", "the recorded run asked its model at step 200 of branch main",
    )  # fmt: skip
    assert pilot.due(run_info(step=0)) == 200
    assert pilot.due(run_info(branch="b2")) is None
    assert pilot.propose(window()) == first
    assert pilot.due(run_info()) == 260
    assert pilot.unplayed() == ["e1, asked at step 260: proposal"]
    assert pilot.propose(later) == second
    assert pilot.unplayed() == []
    nothing = pilot.propose(later)
    assert isinstance(nothing, NoProposal)
    assert "asked its model nothing more" in nothing.reason


def test_a_journal_of_an_earlier_version_has_no_turns_and_says_so() -> None:
    _, one = flown([called(BACK)])
    again = played(one.model_copy(update={"session": None}))
    assert isinstance(again, NoProposal)
    assert again.kind == "turns_differ"


def test_a_journal_without_any_question_is_told_at_once() -> None:
    with pytest.raises(BadInput, match="the journal holds no decision that a language model"):
        PlayedAgent([])


def test_turns_are_played_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    found, one = flown([called(BACK)], api_key=SecretStr(KEY))
    for name, value in (("DEADLINE", "0.001"), ("PRICE_IN", "3"), ("MAX_LOOKUPS", "0")):
        monkeypatch.setenv(f"AUTOPILOT_LLM_{name}", value)
    monkeypatch.setenv("AUTOPILOT_LLM_BASE_URL", "https://llm.example.com/v1")
    assert played(one) == found
