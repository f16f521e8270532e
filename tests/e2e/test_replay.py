"""``autopilot replay`` over the directories of real runs, and over what other programs wrote."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from e2e.flying import SICK, autopilot, journal, strict

from autopilot.journal import Journal
from autopilot.schema import Row


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a real training that the rule agent piloted."""
    folder = tmp_path_factory.mktemp("runs") / "flown"
    done = autopilot("run", "--run-dir", folder, "--", *SICK, STEPS=260)
    assert done.returncode == 0, done.stderr
    return folder


def reports(*words: object) -> list[Any]:
    done = autopilot("replay", *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [strict(line) for line in done.stdout.splitlines()]


def test_the_same_is_found_at_the_same_steps_as_live(flown: Path) -> None:
    (report,) = reports(flown)
    live = [e.body["finding"] for e in journal(flown) if e.kind == "finding"]
    assert live
    assert report["findings"] == live
    assert report["as_live"] is True
    assert report["rows"] == 260
    episodes = [e.body["episode"] for e in journal(flown) if e.kind == "episode"]
    ends = {e["id"]: (e["onset_step"], e["diagnosis"], e["status"]) for e in episodes}
    again = {e["id"]: (e["onset_step"], e["diagnosis"], e["status"]) for e in report["episodes"]}
    assert again == ends


def test_the_pilot_would_propose_what_it_proposed_live(flown: Path) -> None:
    (report,) = reports(flown)
    proposed = [e.body["record"]["proposal"] for e in journal(flown) if e.kind == "proposal"]
    decided = [decision["proposal"]["interventions"] for decision in report["decisions"]]
    assert decided == [proposal["interventions"] for proposal in proposed]
    assert report["decisions"][0]["verdict"]["decision"] == "allow"
    assert report["first_accepted"] == 0
    (applied,) = report["applied"]
    assert applied["record"]["receipt"]["proven"] is True


def test_replaying_twice_gives_the_same_bytes(flown: Path) -> None:
    for words in ((flown, "--json"), (flown,)):
        digests = {
            hashlib.sha256(autopilot("replay", *words).stdout.encode()).hexdigest()
            for _ in range(2)
        }
        assert len(digests) == 1


def test_it_is_told_as_a_story(flown: Path) -> None:
    done = autopilot("replay", flown)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout
    assert told.index("finding schedule_fault") < told.index("agent:rules would propose: set_lr")
    assert "would be allowed" in told
    assert told.index("from here on the recorded future") < told.index("recorded: step")
    assert "P1 applied after step" in told
    assert "proposals: 1 (1 allowed, 0 asked about, 0 denied)" in told
    assert "went on as if nothing had been applied" in told


def test_a_pace_can_be_set_and_changes_nothing(flown: Path) -> None:
    fast, paced = (autopilot("replay", flown, "--speed", speed) for speed in ("max", "100x"))
    assert (paced.returncode, paced.stderr) == (0, "")
    assert paced.stdout == fast.stdout


def test_another_agent_and_another_policy_over_several_recordings(
    flown: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('autonomy = "observe"\n')
    first, second = reports(flown, flown / "journal.sqlite", "--policy", policy)
    assert first == second
    assert [d["verdict"]["rule"] for d in first["decisions"]] == ["autonomy"]
    assert first["first_accepted"] is None
    (observed,) = reports(flown, "--agent", "observe")
    assert observed["decisions"] == []
    assert observed["no_proposals"][0]["no_proposal"]["kind"] == "waiting"


def test_an_agent_of_ones_own_is_flown(
    flown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from autopilot.schema import Note, Proposal\n"
        "class Mine:\n"
        "    name = 'mine'\n"
        "    def propose(self, window):\n"
        "        text = f'seen at {window.run.step}'\n"
        "        return Proposal(interventions=(Note(text=text),), episode=window.episode.id)\n"
    )
    monkeypatch.chdir(tmp_path)
    (report,) = reports(flown, "--agent", "mine:Mine")
    decision = report["decisions"][0]
    assert report["agent"] == "mine"
    assert decision["proposal"]["interventions"] == [
        {"kind": "note", "text": f"seen at {decision['step']}"}
    ]


def test_what_another_program_wrote_is_replayed_too(tmp_path: Path) -> None:
    lines = [{"step": s, "loss": 2.0 + 0.01 * (s % 5), "lr": 0.001} for s in range(1, 101)]
    lines[79]["loss"] = "NaN"
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (report,) = reports(log)
    assert [(f["kind"], f["step"]) for f in report["findings"]] == [("non_finite", 80)]
    assert report["as_live"] is None
    assert report["decisions"][0]["step"] == 80


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    (folder / "empty").mkdir()
    (folder / "text").write_text("hello\n")
    for name in ("newer", "altered"):
        (folder / name).mkdir()
        with Journal.create(folder / name / "journal.sqlite", run_id="r", name=name) as made:
            made.append_rows([Row(1, {"loss": 1.0})])
    for name, change in (
        ("newer", "UPDATE meta SET value = '99' WHERE key = 'schema_version'"),
        ("altered", "UPDATE pages SET cells = x'00'"),
    ):
        with sqlite3.connect(folder / name / "journal.sqlite") as db:
            db.execute(change)
        db.close()
    (folder / "broken.py").write_text("def make():\n    raise RuntimeError('no\\nidea')\n")
    (folder / "policy.toml").write_text("autonomie = 'act'\n")
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{0}/none", "no such run directory"),
        ("{0}/empty", "{0}/empty"),
        ("{0}/text", "{0}/text"),
        ("{0}/newer", "of version 99, newer than"),
        ("{0}/altered", "was altered"),
        ("{0}/altered --agent gpt", "no such agent; known: rules, observe"),
        ("{0}/altered --agent nowhere:make", "No module named 'nowhere'"),
        ("{0}/altered --agent broken:none", "has no attribute 'none'"),
        ("{0}/altered --agent broken:make", "RuntimeError: no idea"),
        ("{0}/altered --agent builtins:dict", "made dict, which has no name"),
        ("{0}/altered --policy {0}/policy.toml", "autonomie: no such key"),
        ("{0}/altered --speed fast", "expected max, or a number of times"),
        ("{0}/altered --speed 0x", "expected max, or a number of times"),
        ("{0}/altered --speed 2x --json", "nothing to watch with --json"),
        ("", "RECORDING"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    places: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.chdir(places)
    done = autopilot("replay", *words.format(places).split())
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("autopilot: ")
    assert said.format(places) in done.stderr
