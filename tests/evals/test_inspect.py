"""Reviewed decisions under the real Inspect AI: our agents by its command line, and its models."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import autopilot_evals
from autopilot_agents.rules import RuleAgent
from autopilot_evals.suites.decisions import report, reviewed

pytest.importorskip("inspect_ai")

FILE = Path(str(autopilot_evals.__file__)).parent / "inspect_tasks.py"


def log_of(folder: Path, *words: str) -> dict[str, Any]:
    """What ``inspect eval`` writes down of a run of its own."""
    made = [sys.executable, "-m", "inspect_ai", "eval", f"{FILE}@autopilot_decisions", *words]
    made += ["--log-dir", str(folder), "--log-format", "json", "--display", "none"]

    done = subprocess.run(made, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = folder.glob("*.json")
    log: dict[str, Any] = json.loads(written.read_text())
    return log


def metrics_of(log: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        score["name"]: {name: one["value"] for name, one in score["metrics"].items()}
        for score in log["results"]["scores"]
    }


def test_inspect_finds_of_our_agent_what_we_find(tmp_path: Path) -> None:
    log = log_of(tmp_path, "-T", "agent=rules", "--model", "none/none")
    found = report([RuleAgent], reviewed(), seeds=1)
    ours = found.lines[0]
    theirs = metrics_of(log)
    assert theirs["agreement"]["mean"] == pytest.approx(ours.agreement)
    assert theirs["harm"]["mean"] == pytest.approx(ours.harm)
    assert 0.0 < theirs["agreement"]["stderr"] < 0.2
    grades = {
        sample["id"]: sample["scores"]["beside_experts"]["metadata"]["grade"]
        for sample in log["samples"]
    }
    assert grades == {decision.number: one.grade for decision, one in found.answers["rules"]}
    assert log["eval"]["metadata"]["agent"] == "rules"
    assert log["stats"]["model_usage"] == {}


SCRIPT = """
import json, sys
from inspect_ai import eval
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from autopilot_evals.inspect_tasks import autopilot_decisions
from autopilot_evals.suites.decisions import reviewed

asked = []
def answer(messages, tools, choice, config):
    asked.append(messages[-1].text)
    words = '{"answer": "ask", "why": "I am a mock"}' if len(asked) % 5 else "I would rather not."
    said = ModelOutput.from_content("mockllm/model", words)
    # Without it Inspect counts with a tokenizer that it first downloads.
    said.usage = ModelUsage(input_tokens=900, output_tokens=10, total_tokens=910)
    return said

log = eval(
    autopilot_decisions(agent="model"),
    model=get_model("mockllm/model", custom_outputs=answer),
    log_dir=sys.argv[1], log_format="json", display="none", max_samples=1, max_connections=1,
)[0]
print(log.status, len(asked), all("--------" in text for text in asked))
"""


def test_a_model_of_inspect_is_asked_about_every_window_and_graded_alike(tmp_path: Path) -> None:
    made = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(made, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["success", str(len(reviewed())), "True"]
    (written,) = tmp_path.glob("*.json")
    log = json.loads(written.read_text())
    sets = {decision.number: decision.sets for decision in reviewed()}
    scores = {one["id"]: one["scores"]["beside_experts"] for one in log["samples"]}
    unreadable = [one for one in scores.values() if one["metadata"]["grade"] == "unreadable"]
    assert len(unreadable) == len(sets) // 5
    assert all(one["value"] == {"agreement": 0.0, "harm": 0.0} for one in unreadable)
    for number, one in scores.items():
        if one["metadata"]["grade"] != "unreadable":
            assert one["answer"] == "ask"
            assert one["value"]["agreement"] == float("ask" in sets[number].acceptable)
    agreed = sum(one["value"]["agreement"] for one in scores.values())
    assert metrics_of(log)["agreement"]["mean"] == pytest.approx(agreed / len(scores))


def test_an_unknown_agent_names_those_that_are_known(tmp_path: Path) -> None:
    words = (f"{FILE}@autopilot_decisions", "-T", "agent=nobody", "--model", "none/none")
    made = [sys.executable, "-m", "inspect_ai", "eval", *words]
    done = subprocess.run(made, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "agent=nobody: no such agent; known: model, rules, observe" in done.stdout + done.stderr
