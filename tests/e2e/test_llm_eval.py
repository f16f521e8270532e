"""Agents that ask a model are evaluated like any other, against any server; figures by hand."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from e2e.flying import AUTOPILOT, PATIENCE, environment, strict, until
from fake_llm import FakeLLM, called
from made_up import write_run

from autopilot_evals.labels import LabelledEvent
from autopilot_evals.suites.decisions import reviewed

CALL = {"calls": 1, "input_tokens": 1000, "cached_tokens": 600, "output_tokens": 50}
"""What each request is said to take, and at these prices costs."""
PRICES = {"AUTOPILOT_LLM_PRICE_IN": "2", "AUTOPILOT_LLM_PRICE_OUT": "10"}
DOLLARS = 1000 * 2 / 1e6 + 50 * 10 / 1e6

_FIGURE = re.compile(r" ([a-z_]+@\d+=[-+.\w]+)$", re.MULTILINE)


def scripted(body: dict[str, Any]) -> dict[str, Any]:
    """Goes back where a loss is no number, follows the plan where a rate left it; else waits."""
    window = body["messages"][1]["content"]
    findings = window.partition("FINDINGS")[2].partition("STATISTICS")[0]
    cited = _FIGURE.findall(findings)
    changes = {"non_finite": {"kind": "go_back", "checkpoint": "last_good"},
               "schedule_fault": {"kind": "set_lr", "value": "plan"}}  # fmt: skip
    change = next((made for kind, made in changes.items() if f" {kind} [" in findings), None)
    if change is None or not cited:
        return called(("wait", {"rationale": "too early", "why": "not_yet"}))
    words = {"diagnosis": "damaged", "rationale": f"{cited[0]} shows it", "evidence": cited[:1],
             "expected_effect": "the loss is finite", "change": change}  # fmt: skip
    return called(("propose", words))


def aboard(model: FakeLLM) -> dict[str, str]:
    return environment(
        AUTOPILOT_LLM_MODEL="fake-1", AUTOPILOT_LLM_BASE_URL=model.url, COLUMNS=200, **PRICES
    )


def evaluated(model: FakeLLM, *words: object) -> Any:
    """What the suite prints as JSON, with two processes at work."""
    done = subprocess.run(
        [*AUTOPILOT, "eval", *map(str, words), "--agent", "llm", "--jobs", "2", "--json"],
        capture_output=True, text=True, timeout=3 * PATIENCE, env=aboard(model), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return strict(done.stdout)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def is_any_left(group: int) -> bool:
    """Whether any process of the group is alive."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def took(spent: dict[str, Any], calls: int) -> None:
    """That is what so many requests take, and a while."""
    assert {name: spent[name] for name in CALL} == {name: calls * CALL[name] for name in CALL}
    assert spent["price_usd"] == pytest.approx(calls * DOLLARS)
    assert spent["seconds"] > 0


def test_detection_asks_a_model_about_every_episode_and_scores_what_it_says(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out.jsonl"
    corpus.mkdir()
    broken = LabelledEvent(kind="nan", onset=400, end=599)
    spiked = LabelledEvent(kind="spike", signal="loss", onset=300, end=330)
    write_run(corpus, "nan", (broken,), 2)
    write_run(corpus, "spike", (spiked,), 1)
    write_run(corpus, "healthy", (), 3)
    words = ("detection", "--corpus", corpus, "--out", out)
    with FakeLLM(scripted) as model:
        found = evaluated(model, *words)
        asked = len(model.requests)
        assert asked >= 2
        (said,) = found["agents"]
        line = said["lines"]["all"]
        # Of two events it acts on the one that it knows, where it was asked, and never in vain.
        assert (line["events"], line["found"], line["recall"]) == (2, 1.0, 0.5)
        assert (line["false_alarms"], line["precision"], said["proposals"]) == (0, 1.0, 1)
        assert said["no_proposals"] == {"waiting": 1}
        assert (said["model"], said["asked"]) == ("fake-1", asked)
        took(said["spent"], asked)
        answers = [row for row in rows_of(out) if row["origin"].get("model") == "fake-1"]
        turns = [
            turn
            for row in answers
            for consultation in row["value"]["consultations"]
            for turn in consultation["session"]["turns"]
        ]
        assert len(turns) == asked
        assert all(turn["reply"]["input_tokens"] == 1000 for turn in turns)
        out.write_text("".join(f"{json.dumps(row)}\n" for row in rows_of(out) if row != answers[0]))
        again = evaluated(model, *words, "--report", tmp_path / "page.html")
        fewer = len(answers[0]["value"]["consultations"])
        assert len(model.requests) == asked + fewer
    line.pop("delay_rows")
    (repeated,) = again["agents"]
    assert line.items() <= repeated["lines"]["all"].items()
    assert "fake-1" in (tmp_path / "page.html").read_text()


def test_decisions_go_on_after_a_kill_and_cost_what_their_requests_took(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [*AUTOPILOT, "eval", "decisions", "--agent", "llm", "--jobs", "2", "--out", str(out)]
    with FakeLLM([called(("wait", {"rationale": "all well", "why": "benign"}))]) as model:
        begun = subprocess.Popen(
            command, env=aboard(model), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        until(lambda: out.exists() and out.read_bytes().count(b"\n") >= 5)
        assert begun.poll() is None
        begun.kill()
        begun.wait()
        until(lambda: not is_any_left(begun.pid))  # those that worked for it end too
        kept = out.read_bytes()
        whole = kept[: kept.rindex(b"\n") + 1]
        found = evaluated(model, "decisions", "--out", out)
        assert out.read_bytes().startswith(whole)
        rows = rows_of(out)
        assert len(rows) == len({row["key"] for row in rows}) == len(found["answers"]["llm"])
    lines = {line["agent"]: line for line in found["lines"]}
    never, ours = lines["never acts"], lines["llm"]
    for name in ("agreement", "harm", "where_to_act", "where_to_hold", "balanced"):
        assert ours[name] == never[name]  # that all is well is what never acting says
    asked = [row["value"]["consultations"] for row in rows]
    shown = [one.window().episode for one in reviewed()]
    sick = [episode for episode in shown if episode and episode.diagnosis != "benign"]
    assert sum(map(bool, asked)) == len(sick)  # the rest needs no model to be told
    took(ours["spent"], sum(map(len, asked)))
    assert {row["origin"]["model"] for row in rows} == {"fake-1"}
    turns = [one["session"]["turns"] for consultations in asked for one in consultations]
    assert all(len(of_it) == 1 and of_it[0]["reply"] is not None for of_it in turns)


@pytest.mark.slow
def test_the_sandbox_flies_a_model_and_bills_it(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    words = ("sandbox", "--scenario", "schedule-jump", "--seeds", "1", "--out", out)
    with FakeLLM(scripted) as model:
        found = evaluated(model, *words)
        asked = len(model.requests)
        assert asked >= 1
        assert evaluated(model, *words) == found
        assert len(model.requests) == asked
    (flown,) = found["agents"]
    (scored,) = found["scenarios"]["llm"]
    took(flown["spent"], asked)
    assert flown["model"] == "fake-1"
    (row,) = (row for row in rows_of(out) if row["origin"].get("agent") == "llm")
    applied = row["value"]["applied"]
    assert [one["answer"] for one in applied] == ["set_lr"]
    assert scored["interventions"] == [1]
    losses = {arm["name"]: arm["loss"] for arm in scored["arms"]}
    alone, best = losses["no-op"], scored["oracle"]["loss"]
    assert scored["agent"]["loss"] == row["value"]["val_loss"]
    by_hand = (alone - scored["agent"]["loss"]) / (alone - best)
    assert scored["gain"] == pytest.approx(by_hand)
