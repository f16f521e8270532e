"""Trainer, pilot and client killed at random moments: what was acknowledged is kept, and once."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.flying import SCRIPTS, environment

from autopilot.journal import Journal
from autopilot.schema import Event, ProposalRecord, ScaleLR

PARTS = ("train", "pilot", "client")
FOREVER = 1_000_000
SETTLED = {"denied", "applied", "kept", "reverted", "rejected", "expired"}


class Cast:
    """The children of a zygote: one trainer, one pilot, one client."""

    def __init__(self, zygote: "subprocess.Popen[str]") -> None:
        self._zygote = zygote
        self._living: dict[str, int] = {}
        self._seed = 0

    def enter(self, part: str, number: int | None = None) -> None:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._seed += 1
        self._zygote.stdin.write(f"{part} {self._seed if number is None else number}\n")
        self._zygote.stdin.flush()
        self._living[part] = int(self._zygote.stdout.readline())

    def kill(self, part: str) -> None:
        """Without a warning; returns when it is gone."""
        child = self._living.pop(part)
        os.kill(child, signal.SIGKILL)
        self.await_end(child)

    def await_end(self, child: int) -> None:
        until = time.monotonic() + 60
        while Path(f"/proc/{child}").exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert not Path(f"/proc/{child}").exists()

    def leave(self) -> None:
        for part in list(self._living):
            self.kill(part)


@contextmanager
def cast(run: Path, acknowledged: Path) -> Iterator[Cast]:
    with subprocess.Popen(
        [sys.executable, str(SCRIPTS / "zygote.py"), str(run), str(acknowledged)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as zygote:
        found = Cast(zygote)
        try:
            yield found
        finally:
            found.leave()
            zygote.kill()


def await_answers(acknowledged: Path, count: int = 6) -> None:
    """Wait until the run has answered a few times more."""
    before = len(acknowledged.read_text().splitlines()) if acknowledged.exists() else 0
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if acknowledged.exists() and len(acknowledged.read_text().split("\n")) > before + count:
            return
        time.sleep(0.01)
    raise AssertionError("the run answers nobody")


def kill_and_go_on(folder: Path, rounds: int) -> None:
    run, acknowledged = folder / "run", folder / "acknowledged"
    rng = random.Random(rounds)
    with cast(run, acknowledged) as children:
        for part in PARTS:
            children.enter(part, FOREVER if part == "train" else None)
        for _ in range(rounds):
            if rng.random() < 0.8:  # else whoever was killed last is killed while it comes up
                await_answers(acknowledged)
            time.sleep(rng.uniform(0.0, 0.3))
            part = rng.choice((*PARTS, "train"))
            children.kill(part)
            children.enter(part, FOREVER if part == "train" else None)
        await_answers(acknowledged)
    with Journal.read(run / "journal.sqlite") as journal:
        journal.verify()
        events = journal.events()
    check_acknowledged(events, acknowledged.read_text().splitlines())
    check_applied_once(events)


def check_acknowledged(events: list[Event], lines: list[str]) -> None:
    """Nothing that was answered is lost, and no key was entered twice."""
    filed: dict[str, list[str]] = {}
    for event in events:
        if event.kind == "proposal" and "key" in event.body:
            filed.setdefault(event.body["key"], []).append(event.body["record"]["id"])
    approved = {e.body["record"]["id"] for e in events if e.kind == "approval"}
    assert all(len(ids) == 1 for ids in filed.values())
    assert any(line.startswith("filed agent") for line in lines)
    assert any(line.startswith("approved") for line in lines)
    for line in lines:
        match line.split():
            case ["filed", key, proposal]:
                assert filed[key] == [proposal]
            case ["approved", proposal]:
                assert proposal in approved


def check_applied_once(events: list[Event]) -> None:
    """Every command was applied once or settled otherwise; what is in force is their product."""
    last = {
        e.body["record"]["id"]: ProposalRecord.model_validate(e.body["record"])
        for e in events
        if "record" in e.body
    }
    newest = max(e.seq for e in events if e.kind == "run_started")
    before = {e.body["record"]["id"] for e in events if "record" in e.body and e.seq < newest}
    assert {last[proposal].status for proposal in before} <= SETTLED
    applied = [e for e in events if e.kind == "applied"]
    assert max(Counter(e.body["record"]["id"] for e in applied).values()) == 1
    factors = [
        change.factor
        for e in applied
        for change in last[e.body["record"]["id"]].proposal.interventions
        if isinstance(change, ScaleLR)
    ]
    assert len(factors) > 5
    in_force = applied[-1].body["in_force"]
    assert in_force["commands"] == len(applied)
    assert in_force["lr"]["groups"][0]["scale"] == pytest.approx(math.prod(factors), rel=1e-9)


def test_twenty_kills_of_trainer_pilot_and_client_lose_and_double_nothing(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, 20)


@pytest.mark.slow
def test_two_hundred_kills_of_trainer_pilot_and_client_lose_and_double_nothing(
    tmp_path: Path,
) -> None:
    kill_and_go_on(tmp_path, 200)
