"""A run whose process was killed goes on: exactly, from its newest sound checkpoint, recorded."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from e2e.flying import AUTOPILOT
from e2e.scripts.resumable import train
from forked import Forked, run_forked
from torch import nn

from autopilot.client import connect
from autopilot.errors import BadInput, JournalBusy
from autopilot.journal import Journal
from autopilot.recording import read_run
from autopilot.schema import Event, Rollback, ScaleLR, SetGradClip, SetKnob, SetOptimizer
from autopilot_agents.rules import ObserveAgent
from autopilot_evals.replay import replay
from autopilot_trainer import Session

SCRIPT = Path(__file__).parent / "scripts" / "resumable.py"
KINDS = ("shuffled", "workers", "iterable", "accumulation")
STEPS = 60


def start(folder: Path, kind: str, steps: int, *, resume: bool) -> Forked:
    settings = {"AUTOPILOT_RUN_DIR": str(folder), "AUTOPILOT_RESUME": str(int(resume))}
    return Forked(
        [str(SCRIPT), kind, str(steps), "0.005"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        environment={**os.environ, **settings},
    )


def killed_at(folder: Path, kind: str, step: int, *, resume: bool = False) -> dict[int, str]:
    """Train until that step was printed, then kill without a warning; the losses until then."""
    seen = {}
    with start(folder, kind, STEPS, resume=resume) as process:
        assert process.stdout is not None
        for line in process.stdout:
            number, loss = line.split()
            seen[int(number)] = loss
            if int(number) >= step:
                break
        process.send_signal(signal.SIGKILL)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_that_is_resumed_trains_the_losses_of_one_that_was_not_killed(
    kind: str, tmp_path: Path
) -> None:
    whole = train(kind, STEPS, run_dir=tmp_path / "whole")
    seen = killed_at(tmp_path / "run", kind, 24)
    resumed = train(kind, STEPS, run_dir=tmp_path / "run", resume=True)
    assert min(resumed) == 19, "the checkpoint of step 18 is the newest"
    assert seen | resumed == whole


def kill_again_and_again(folder: Path, rounds: int) -> None:
    """Kill at random moments; the run ends as if nothing had been, and its journal is whole."""
    whole = train("shuffled", STEPS, run_dir=folder / "whole")
    rng, seen = random.Random(rounds), dict[int, str]()
    for number in range(rounds):
        reach = 2 + (STEPS - 10) * number // rounds
        step = rng.randint(reach, reach + 8)
        seen |= killed_at(folder / "run", "shuffled", step, resume=number > 0)
        with Journal.read(folder / "run" / "journal.sqlite") as journal:
            journal.verify()
    assert seen | train("shuffled", STEPS, run_dir=folder / "run", resume=True) == whole
    report = replay(read_run(folder / "run"), ObserveAgent())
    assert report.as_live, "the directory of a run of many processes replays as it was"


def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 4)


@pytest.mark.slow
def test_a_run_killed_two_hundred_times_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 200)


class Training:
    """One process's worth of a small run, in this process."""

    def __init__(self, folder: Path, **options: object) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.session = Session(self.model, self.optimizer, run_dir=folder, **options)  # type: ignore[arg-type]
        self.batches = [
            torch.randn(6, 4, generator=torch.Generator().manual_seed(s)) for s in range(80)
        ]
        self.temperature = 1.0

    def set_temperature(self, value: float) -> None:
        self.temperature = value

    def train(self, to: int, at: Mapping[int, Callable[[], object]] | None = None) -> None:
        """Train to a step; do something after so many executed ones."""
        session = self.session
        for batch in session.batches(self.batches, steps=to):
            loss = (self.model(batch).squeeze(1) - batch.sum(1)).square().mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            session.report(loss=loss)
            if at is not None and session.executed in at:
                at[session.executed]()


def crash() -> None:
    raise RuntimeError("crashed")


def events(folder: Path) -> list[Event]:
    with Journal.read(folder / "journal.sqlite") as journal:
        return journal.events()


def test_what_interventions_put_in_force_is_in_force_after_a_resume(tmp_path: Path) -> None:
    first = Training(tmp_path / "run", checkpoint_every=10)
    with first.session as session:
        session.knob("temperature", lambda: first.temperature, first.set_temperature,
                     minimum=0.0, maximum=9.0)  # fmt: skip
        with connect(str(session.run_dir), "operator", "eve") as person:
            changes = (
                ScaleLR(factor=0.5),
                SetGradClip(max_norm=0.25),
                SetOptimizer(name="betas", value=(0.8, 0.95)),
                SetKnob(name="temperature", value=3.0),
            )
            for number, change in enumerate(changes):
                person.command((change,), key=f"k{number}")
            first.train(25)
    second = Training(tmp_path / "run", checkpoint_every=10, resume=True)
    with second.session as session:
        session.knob("temperature", lambda: second.temperature, second.set_temperature,
                     minimum=0.0, maximum=9.0)  # fmt: skip
        with connect(str(session.run_dir), "viewer", "eve") as viewer:
            assert session.step == 20
            second.train(40)
            time.sleep(0.3)
            settings = viewer.info().capabilities.settings
    assert second.temperature == 3.0
    assert settings["lr"].value == pytest.approx(0.5e-2)
    assert settings["grad_clip"].value == 0.25
    assert settings["optimizer.betas"].value == "(0.8, 0.95)"


def test_batches_that_a_rollback_left_out_stay_left_out_after_a_resume(tmp_path: Path) -> None:
    first = Training(tmp_path / "run", checkpoint_every=10)

    def go_back() -> None:
        with connect(str(tmp_path / "run"), "operator", "eve") as person:
            person.command((Rollback(checkpoint="s20", skip_batches=15),), key="k")

    with pytest.raises(RuntimeError, match="crashed"), first.session:
        first.train(60, {32: go_back, 35: crash})
    second = Training(tmp_path / "run", checkpoint_every=10, resume=True)
    with second.session as session:
        second.train(30)
        cursor = session._training.stream.position.cursor  # type: ignore[union-attr]
    assert cursor == 30 + 15


def test_a_torn_a_flipped_and_a_missing_checkpoint_are_passed_over_for_an_older_one(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    first = Training(folder, checkpoint_every=10)
    with first.session:
        first.train(45)
    states = folder / "checkpoints"
    torn = states / "step-40" / "state.pt"
    torn.write_bytes(torn.read_bytes()[:-100])
    flipped = states / "step-30" / "state.pt"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    (states / "step-20" / "state.pt").unlink()
    second = Training(folder, checkpoint_every=10, resume=True)
    with second.session as session:
        assert session.step == 10
        second.train(45)
    faults = [e.body["text"] for e in events(folder) if e.kind == "fault"]
    named = [name for name in ("step-40", "step-30", "step-20") if any(name in f for f in faults)]
    assert named == ["step-40", "step-30", "step-20"]


def test_a_run_without_a_checkpoint_begins_anew_and_says_so(tmp_path: Path) -> None:
    first = Training(tmp_path / "run")
    with first.session:
        first.train(20)
    second = Training(tmp_path / "run", resume=True)
    with second.session as session:
        assert session.step == 0
        second.train(10)
    notes = [e.body["text"] for e in events(tmp_path / "run") if e.kind == "note"]
    assert notes == ["no checkpoint to go on from: the run begins anew; "
                     "20 steps beyond it are trained again"]  # fmt: skip


def test_a_run_that_is_live_is_not_gone_on_with_and_its_process_is_named(tmp_path: Path) -> None:
    with start(tmp_path / "run", "shuffled", 5000, resume=False) as process:
        assert process.stdout is not None
        process.stdout.readline()
        second = Training(tmp_path / "run", resume=True)
        with pytest.raises(JournalBusy, match=rf"process {process.pid} writes it"):
            second.session.__enter__()
        with pytest.raises(BadInput, match="holds a run already"):
            Training(tmp_path / "run")
        process.kill()


def test_a_model_of_another_shape_is_refused_before_it_trains(tmp_path: Path) -> None:
    first = Training(tmp_path / "run", checkpoint_every=10)
    with first.session:
        first.train(20)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    other = Session(model, optimizer, run_dir=tmp_path / "run", resume=True)
    with pytest.raises(BadInput, match="does not fit the model and optimizer"):
        other.__enter__()
    second = Training(tmp_path / "run", resume=True)
    with second.session as session:
        assert session.step == 20


def autopilot_run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    program = [*AUTOPILOT, "run", "--json", "--run-dir", str(folder)]
    return run_forked([*program, *arguments], timeout=180)


CRASHING = """
import sys, torch
from torch import nn
from autopilot_trainer import Session
torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
with Session(model, optimizer, checkpoint_every=20) as session:
    for batch in session.batches([torch.randn(8, 4) for _ in range(50)], steps=80):
        loss = model(batch).square().mean()
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        session.report(loss=loss.detach())
        if session.step == 55 and (sys.argv[1] == "always" or session.executed == 55):
            raise RuntimeError("boom")
"""


def test_a_process_that_fails_once_is_restarted_from_its_checkpoint_and_ends_well(
    tmp_path: Path,
) -> None:
    script = tmp_path / "crashing.py"
    script.write_text(CRASHING)
    done = autopilot_run(
        tmp_path / "run", "--restarts", "3", "--", sys.executable, str(script), "once"
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [e["seq"] for e in told] == list(range(1, len(told) + 1)), "each event is told once"
    assert [e["step"] for e in told if e["kind"] == "run_started"] == [0, 55]
    ends = [e["body"]["status"] for e in told if e["kind"] == "run_ended"]
    assert ends == ["failed", "ended"]


def test_a_process_that_fails_again_at_the_same_step_is_left_to_a_person(tmp_path: Path) -> None:
    script = tmp_path / "crashing.py"
    script.write_text(CRASHING)
    done = autopilot_run(
        tmp_path / "run", "--restarts", "5", "--", sys.executable, str(script), "always"
    )
    assert done.returncode == 1
    assert "failed with 1 at step 55, as it did before; it is not started again" in done.stderr
    started = [e for e in events(tmp_path / "run") if e.kind == "run_started"]
    assert len(started) == 2
