"""A model beside the rules, over real processes and sockets; only the model is played."""

from pathlib import Path

import pytest
from e2e.flying import (
    AUTOPILOT,
    SICK,
    SUGGEST,
    autopilot,
    autopilot_json,
    ended,
    journal,
    kinds,
    losses,
    start,
    train,
    until,
)
from fake_llm import FakeLLM, Raw, says

from autopilot.client import connect

WORDS = "The weights are sound and the learning rate is off its plan."


def settings(model: FakeLLM) -> dict[str, str]:
    return {
        "AUTOPILOT_LLM_MODEL": "fake-1",
        "AUTOPILOT_LLM_BASE_URL": model.url,
        "AUTOPILOT_LLM_TIMEOUT": "5",
        "AUTOPILOT_LLM_DEADLINE": "10",
    }


def test_a_person_reads_a_models_words_beside_a_proposal_that_waits(tmp_path: Path) -> None:
    folder, policy = tmp_path / "run", tmp_path / "policy.toml"
    policy.write_text(SUGGEST)
    with FakeLLM([says(WORDS)]) as model:
        training = train(folder, AUTOPILOT_POLICY=policy, FAULT=30, STEPS=100_000, PACE=0.01)
        pilot = start(
            *AUTOPILOT, "watch", folder, "--agent", "rules+llm",
            output=tmp_path / "pilot.out", **settings(model),
        )  # fmt: skip
        try:
            until(lambda: "consultation" in kinds(folder))
            shown = " ".join(autopilot("pending", folder).stdout.replace("│", " ").split())
            assert WORDS in shown
            assert "fake-1 on P1" in shown
            with connect(str(folder), "viewer", "test") as run:
                info = run.info()
            assert info.pilot is not None
            assert info.pilot.actor == "agent:rules+llm"
            assert info.llm_usd_spent == 0.0  # a server of one's own costs nothing
            (waiting,) = autopilot_json("pending", folder)
            approved = autopilot_json("approve", folder, waiting["id"])
            assert approved["receipt"]["proven"] is True
            told = autopilot("log", folder).stdout
            assert "fake-1 asked to review P1: review" in told
            report = autopilot("report", folder).stdout
            assert "fake-1" in report
            assert "1,000" in report
        finally:
            for process in (pilot, training):
                process.kill()
                process.wait()
    (asked,) = [e.body["consultation"] for e in journal(folder) if e.kind == "consultation"]
    assert asked["host"] == "127.0.0.1"
    assert asked["usage"]["calls"] == 1
    assert len(model.requests) == 1


def test_a_dead_model_costs_the_run_nothing(tmp_path: Path) -> None:
    flown = {}
    with FakeLLM([Raw(delay=60)]) as model:
        for agent in ("rules", "rules+llm"):
            folder = tmp_path / agent
            process = start(
                *AUTOPILOT, "run", "--agent", agent, "--run-dir", folder, "--", *SICK,
                output=tmp_path / f"{agent}.out", **settings(model),
            )  # fmt: skip
            assert ended(process) == 0
            flown[agent] = losses(folder)
    assert len(flown["rules+llm"]) == len(flown["rules"]) == 400
    assert flown["rules+llm"][-1] < 0.9 * flown["rules+llm"][100]


def test_without_a_model_the_command_says_what_to_set(tmp_path: Path) -> None:
    done = autopilot("run", "--agent", "rules+llm", "--run-dir", tmp_path / "r", "--", "true")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "AUTOPILOT_LLM_MODEL" in done.stderr
    assert not (tmp_path / "r").exists()


def test_the_check_says_what_works_and_what_does_not(tmp_path: Path) -> None:
    with FakeLLM([says("no tools here")]) as model:
        done = autopilot("llm", "check", **settings(model))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "127.0.0.1" in done.stdout


@pytest.mark.slow
def test_a_report_begins_with_a_models_words_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(
        *AUTOPILOT, "run", "--run-dir", folder, "--", *SICK, output=tmp_path / "out",
    )  # fmt: skip
    assert ended(process) == 0
    with FakeLLM([says("The schedule had stopped; the pilot put it back to its plan.")]) as model:
        done = autopilot("report", folder, "--llm", **settings(model))
        assert done.returncode == 0, done.stderr
        assert "put it back to its plan" in " ".join(done.stdout.split())
        assert "schedule_fault" in model.texts()
    with FakeLLM([Raw("down", status=503)]) as model:
        done = autopilot("report", folder, "--llm", **settings(model))
    assert done.returncode == 0, done.stderr
    assert "The model gave no summary (transient)" in " ".join(done.stdout.split())
    assert "Rescued" in done.stdout
