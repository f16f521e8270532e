"""What a decision may take: at most 4,000 tokens at first, and 10,000 in all."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_llm import FakeLLM, called, only_loopback, says
from llm_asked import asked, record, refused, settings
from llm_window import BACK, METRICS, WAIT, answer, capabilities, change, finding, run_info, window

from autopilot.control.guidance import MOST_CHARACTERS, MOST_IN_FORCE
from autopilot.schema import Guidance, Proposal, Setting, Window
from autopilot_agents.llm.agent import DECISION_TOKENS, LLMAgent
from autopilot_agents.llm.allowance import Allowance
from autopilot_agents.llm.tokens import bound_tokens, first_lines
from autopilot_evals.corpus import own_corpus, read_corpus
from autopilot_evals.replay import replay

__all__ = ["only_loopback"]

FIRST, ALL = 4000, 10_000
LARGEST = ("dead-units.csv", "schedule-jump.csv", "stale-second-moment.csv")
"""The three recordings with the largest windows of the corpus that comes along."""


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"AUTOPILOT_LLM_{name}", raising=False)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "llm_tokens.py"
    spec = importlib.util.spec_from_file_location("llm_tokens", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_bounds(benchmark: ModuleType, name: str, shown: Window) -> None:
    told = benchmark.measured(name, shown, bound_tokens)
    assert told["first_request"] <= FIRST
    assert sum(told["sections"].values()) == told["first_request"]
    longest = told["longest_decision"]
    assert sum(longest["requests"]) == longest["all"] <= ALL == DECISION_TOKENS
    assert len(longest["requests"]) >= 2, "there is room for more than one try"


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_windows_of_the_corpus_keep_to_both_bounds(
    name: str, benchmark: ModuleType
) -> None:
    (labelled,) = [run for run in read_corpus(own_corpus()) if run.name == name]
    kept = benchmark.Keeps()
    replay(labelled.open(), kept)
    check_bounds(benchmark, name, kept.largest)


@pytest.mark.slow
def test_those_are_the_largest_windows_of_the_corpus(benchmark: ModuleType) -> None:
    windows, looked = benchmark.largest_windows(own_corpus())
    assert {name for name, _ in windows} == set(LARGEST)
    assert looked["windows"] > 100
    for name, shown in windows:
        check_bounds(benchmark, name, shown)


def test_a_run_of_any_size_keeps_to_both_bounds(benchmark: ModuleType) -> None:
    names = (*METRICS, *(f"extra/{i}" for i in range(60)))
    knobs = {f"k{i}": Setting(name=f"k{i}", value=1.0, description="w " * 500) for i in range(60)}
    run = run_info(
        name="n" * 5000, capabilities=capabilities(knobs=knobs, actions={"a": {"b": "int"}})
    )
    found = [finding(step=s, metric=f"extra/{s % 40}", message="m" * 900) for s in range(100, 200)]
    history = [record(id=f"P{i}") for i in range(30)]
    check_bounds(benchmark, "any", window(run=run, names=names, findings=found, history=history))


def test_guidance_at_its_most_keeps_to_both_bounds(benchmark: ModuleType) -> None:
    (labelled,) = [run for run in read_corpus(own_corpus()) if run.name == LARGEST[0]]
    kept = benchmark.Keeps()
    replay(labelled.open(), kept)
    each = MOST_CHARACTERS // MOST_IN_FORCE
    told = tuple(
        Guidance(id=f"G{i}", text="lr 3e-4? " * (each // 9), actor="human:kim", at=0.0, step=100)
        for i in range(MOST_IN_FORCE)
    )
    run = kept.largest.run.model_copy(update={"guidance": told})
    shown = kept.largest.model_copy(update={"run": run})
    told_of = benchmark.measured("guided", shown, bound_tokens)
    assert "lr 3e-4?" in str(benchmark.decision(shown, 0).requests[0])
    assert told_of["first_request"] <= FIRST
    assert told_of["longest_decision"]["all"] <= ALL


LONG_LOOK = ("metrics", {"metrics": ["loss", "lr"], "first_step": 0, "last_step": 200})


def test_a_model_that_looks_up_and_errs_is_stopped_by_tokens_not_by_turns() -> None:
    """One that reads few tokens a turn has its two repairs; one that reads many has not."""
    small = window(names=("loss",), findings=())
    prose = says("I would rather tell a story.")
    found, llm, agent = asked([prose], small)
    assert "after 2 repairs" in refused(found, "invalid")
    assert len(llm.requests) == 3
    found, llm, agent = asked([called(*[LONG_LOOK] * 4), prose])
    refused(found, "invalid")
    assert agent.course is not None
    assert agent.course.repairs < 2


def test_a_server_that_counts_more_than_the_estimate_is_believed() -> None:
    greedy: dict[str, Any] = says("prose")
    greedy["usage"] |= {"prompt_tokens": 9000, "total_tokens": 9050}
    found, llm, _ = asked([greedy])
    refused(found, "invalid")
    assert len(llm.requests) == 1


def test_look_ups_that_have_no_room_are_not_offered() -> None:
    with FakeLLM([called(WAIT)]) as llm:
        agent = LLMAgent(settings(llm))
        agent.propose(window())
        assert "metrics" in llm.tools()
    allowance = Allowance(most=10_000)
    allowance.begin(6000, 5800)
    assert not allowance.fits_lookups(3000, 2800)
    assert allowance.fits(3900)
    assert allowance.room() == 0


def test_results_share_what_room_there_is_and_say_that_they_were_cut() -> None:
    allowance = Allowance(most=10_000)
    allowance.begin(3000, 2800)
    first = allowance.room()
    allowance.tell(first - 200)
    assert 100 <= allowance.room() < first
    allowance.tell(allowance.room())
    assert allowance.room() == 0
    cut = first_lines("\n".join(f"{i},1.5" for i in range(500)), 60)
    assert cut.endswith("\n…cut")
    assert bound_tokens(cut) <= 60


def test_an_answer_after_look_ups_and_a_repair_still_comes_to_a_proposal() -> None:
    wrong = called(change("go_back", answer(evidence=["loss@3=1"])))
    small = window(names=("loss", "grad_norm"))
    look = called(("metrics", {"metrics": ["loss"], "first_step": 190, "last_step": 195}))
    found, llm, agent = asked([look, wrong, called(BACK)], small)
    assert isinstance(found, Proposal)
    assert len(llm.requests) == 3
    assert agent.course is not None
    assert (agent.course.lookups, agent.course.repairs) == (1, 1)
