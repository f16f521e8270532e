"""A proposal waits, and people answer it from another terminal."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.flying import (
    AUTOPILOT,
    SUGGEST,
    autopilot,
    autopilot_json,
    ended,
    journal,
    losses,
    start,
    strict,
    train,
    until,
)

from autopilot.client import connect
from autopilot.errors import Forbidden


class Flight:
    """A training and a pilot that no terminal is attached to."""

    def __init__(self, folder: Path, policy: str, **settings: object) -> None:
        self.folder = folder / "run"
        path = folder / "policy.toml"
        path.write_text(policy)
        self.training = train(self.folder, AUTOPILOT_POLICY=path, FAULT=30, **settings)
        self.pilot = start(*AUTOPILOT, "watch", self.folder, output=folder / "pilot.out")

    def wait_for_proposal(self) -> str:
        with connect(str(self.folder), "viewer", "test") as run:
            return str(until(lambda: run.proposals("pending"))[0].id)

    def kill(self) -> None:
        for process in (self.pilot, self.training):
            process.kill()
            process.wait()


@pytest.fixture
def flight(tmp_path: Path) -> Iterator[Flight]:
    flight = Flight(tmp_path, SUGGEST, STEPS=100_000, PACE=0.01)
    yield flight
    flight.kill()


def test_a_run_is_flown_from_a_second_terminal(flight: Flight) -> None:
    folder = flight.folder
    proposal = flight.wait_for_proposal()
    follower = start(
        *AUTOPILOT, "log", folder, "--follow", "--json", output=folder.parent / "follow.out"
    )

    (waiting,) = autopilot_json("pending", folder)
    assert (waiting["id"], waiting["status"]) == (proposal, "pending")
    shown = autopilot("pending", folder).stdout
    assert f"autopilot approve {folder} {proposal}" in shown.replace("\n", "")
    assert max(map(len, shown.splitlines()[:-4])) <= 80

    with connect(str(folder), "agent", "rules") as agent, pytest.raises(Forbidden):
        agent.decide(proposal, "approve", digest=waiting["digest"])
    assert autopilot_json("pending", folder)[0]["status"] == "pending"

    approved = autopilot_json("approve", folder, proposal, "-m", "go on")
    assert approved["receipt"]["proven"] is True
    assert approved["receipt"]["changes"] == [{"field": "lr", "old": 0.0, "new": 0.003}]
    assert {read["value"] for read in approved["receipt"]["read_back"]} == {0.003}
    assert approved["approval"]["reason"] == "go on"
    assert autopilot("pending", folder).stdout == "nothing waits for a person\n"
    again = autopilot("approve", folder, proposal)
    assert again.returncode == 2
    assert "there is nothing to decide" in again.stderr

    state = autopilot_json("status", folder)
    assert state["run"]["capabilities"]["settings"]["lr"]["value"] == 0.003
    assert "lr 0.003" in autopilot("status", folder).stdout

    done = autopilot_json("do", folder, "scale_lr", "factor=0.5", "-m", "slower")
    assert done["actor"].startswith("human:")
    assert done["receipt"]["changes"][0]["new"] == 0.0015
    refused = autopilot("do", folder, "scale_lr", "factor=100")
    assert refused.returncode == 2
    assert "limits.lr" in refused.stderr
    undone = autopilot_json("undo", folder, done["id"])
    assert undone["reverts"] == done["id"]
    assert undone["receipt"]["changes"][0]["new"] == 0.003
    shown = autopilot("undo", folder, done["id"])
    assert shown.returncode == 2
    assert "only what is in force" in shown.stderr

    told = autopilot("log", folder).stdout
    assert f"{proposal} approved by human:" in told
    assert "\x1b" not in told
    paused = autopilot("do", folder, "pause").stdout
    assert "applied: pause" in paused
    meanwhile = autopilot("do", folder, "scale_lr", "factor=0.5").stdout
    assert "applied: scale_lr factor=0.5" in meanwhile
    assert "lr: 0.003 → 0.0015" in meanwhile
    assert autopilot("do", folder, "resume").returncode == 0
    assert autopilot("do", folder, "stop", "save=false").returncode == 0
    assert ended(flight.training) == 0
    assert ended(follower) == 0
    lines = (folder.parent / "follow.out").read_text().splitlines()
    events = [strict(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["kind"] == "run_ended"
    past = [strict(line) for line in autopilot("log", folder, "--json").stdout.splitlines()]
    assert past[: len(events)] == events


def test_going_past_the_limits_needs_the_run_s_name(flight: Flight) -> None:
    refused = autopilot("do", flight.folder, "scale_lr", "factor=100", "--force")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    with connect(str(flight.folder), "operator", "kim") as run:
        assert run.info().state_version == 0


def test_a_denied_proposal_changes_nothing(tmp_path: Path) -> None:
    settings = {"STEPS": 300, "PACE": 0.01}
    flight = Flight(tmp_path, SUGGEST, **settings)
    proposal = flight.wait_for_proposal()
    denied = autopilot_json("deny", flight.folder, proposal, "-m", "on purpose")
    assert (denied["status"], denied["receipt"]) == ("denied", None)
    assert denied["approval"]["decision"] == "deny"
    assert ended(flight.training) == 0
    assert ended(flight.pilot) == 0
    alone = tmp_path / "alone"
    assert ended(train(alone, FAULT=30, STEPS=300, PACE=0)) == 0
    assert losses(flight.folder) == losses(alone)
    assert [e.body["record"]["id"] for e in journal(flight.folder) if e.kind == "proposal"] == [
        "P1"
    ]


def test_a_question_whose_episode_has_passed_says_so(flight: Flight) -> None:
    flight.wait_for_proposal()
    passed = "since then    it has passed; the run may need nothing any more"
    assert passed not in autopilot("pending", flight.folder).stdout
    done = autopilot("do", flight.folder, "set_lr", "value=plan")
    assert done.returncode == 0, done.stderr
    with connect(str(flight.folder), "viewer", "test") as run:
        until(lambda: [episode.status for episode in run.closed()] == ["closed"])
    assert passed in autopilot("pending", flight.folder).stdout


def test_an_unanswered_question_expires_and_holds_the_run(tmp_path: Path) -> None:
    policy = SUGGEST + '[approval]\nttl = "1s"\non_expiry = "hold"\n'
    flight = Flight(tmp_path, policy, STEPS=100_000, PACE=0.01)
    with connect(str(flight.folder), "operator", "kim") as run:
        until(lambda: run.info().status == "paused")
        (expired,) = run.proposals("expired")
        assert expired.approval is not None
        assert (expired.approval.decision, expired.approval.actor) == ("expired", "system")
        assert list((flight.folder / "checkpoints").iterdir())
    assert autopilot("do", flight.folder, "stop", "save=false").returncode == 0
    assert ended(flight.training) == 0
    assert "denied" not in [
        event.body["record"]["status"] for event in journal(flight.folder) if "record" in event.body
    ]
    flight.kill()
