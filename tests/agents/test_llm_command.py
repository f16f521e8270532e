"""``autopilot llm check``: one harmless question, and what works is printed."""

import json
from typing import Any

import pytest
import typer
from fake_llm import FakeLLM, called, only_loopback, problem, says
from typer.testing import CliRunner

from autopilot.cli import llm
from autopilot.errors import BadInput
from autopilot_agents.llm.settings import Settings

__all__ = ["only_loopback"]

GOOD = called(("propose", {
    "diagnosis": "misdriven", "rationale": "lr@240=0 is below lr_planned@240=0.01",
    "evidence": ["lr@240=0", "lr_planned@240=0.01"], "expected_effect": "updates resume",
    "change": {"kind": "set_lr", "value": "plan"},
}))  # fmt: skip


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AUTOPILOT_LLM_{name.upper()}", raising=False)


def check(server: FakeLLM, *more: str) -> Any:
    app = typer.Typer()
    llm.register(app)
    given = ["llm", "check", "--model", "fake-1", "--base-url", server.url, *more]
    return CliRunner().invoke(app, given)


def test_a_model_that_works_is_told_with_what_it_took() -> None:
    with FakeLLM([GOOD]) as server:
        done = check(server, "--json")
    assert done.exit_code == 0
    told = json.loads(done.output)
    assert (told["works"], told["structured_output"], told["host"]) == (True, "yes", "127.0.0.1")
    assert told["answer"]["interventions"][0] == {"kind": "set_lr", "value": "plan", "groups": None}
    assert (told["requests"], told["tokens_in"], told["price_usd"]) == (1, 1000, 0.0)
    assert told["seconds"] > 0


def test_a_model_that_needs_a_repair_is_told_as_that() -> None:
    with FakeLLM([says("I would set it back."), GOOD]) as server:
        done = check(server)
    assert done.exit_code == 0
    assert "after 1 repair" in done.output
    assert "proposes: set_lr value=plan" in done.output


@pytest.mark.parametrize("turn", [says("no tools here"), problem(401), problem(404)])
def test_a_model_that_does_not_work_ends_with_1(turn: Any) -> None:
    with FakeLLM([turn]) as server:
        done = check(server)
    assert done.exit_code == 1
    assert "works              no" in done.output


def test_without_a_model_it_says_what_to_set() -> None:
    app = typer.Typer()
    llm.register(app)
    done = CliRunner().invoke(app, ["llm", "check"])
    assert isinstance(done.exception, BadInput)
    assert "AUTOPILOT_LLM_MODEL" in str(done.exception)
