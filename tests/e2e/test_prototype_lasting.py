"""What was measured to fail in the prototype before us: exit, durability, NaN, ports, exactness."""

import http.client
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import torch
from e2e.flying import SCRIPTS, autopilot, autopilot_json, environment, strict
from e2e.steered import Steered, steered

from autopilot.client import connect
from autopilot.errors import Forbidden, NotARun
from autopilot.journal import Journal
from autopilot.schema import Note, Pause, ScaleLR, Stop
from autopilot_trainer import Session

SOON = 20.0
"""Seconds after which the prototype's process had to be killed."""


@contextmanager
def dashboard(run: Steered) -> Iterator[threading.Event]:
    """A client that reads the event stream until that is ended; the event is set by its end."""
    over = threading.Event()
    opened = threading.Event()

    def read() -> None:
        try:
            with run.client("viewer") as client, client.stream("GET", "/v1/events") as stream:
                for _ in stream.iter_lines():
                    opened.set()
        except httpx2.TransportError:
            pass  # how the stream's end looks where the process is gone
        over.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert opened.wait(30)
    yield over
    thread.join(30)


# --- the process always exits -----------------------------------------------------------------


def test_the_process_exits_although_a_client_is_connected_at_the_end(tmp_path: Path) -> None:
    with steered(tmp_path) as run, dashboard(run) as over:
        run.command(Stop(save=False))
        assert run.process.wait(SOON) == 0
        assert over.wait(SOON)


def test_the_process_exits_although_a_client_was_connected_and_left_without_a_word(
    tmp_path: Path,
) -> None:
    with steered(tmp_path) as run:
        port = int(run.url.rsplit(":", 1)[1])
        gone = http.client.HTTPConnection("127.0.0.1", port)
        gone.request("GET", "/v1/events", headers={"Authorization": f"Bearer {run.tokens.viewer}"})
        gone.getresponse().read(20)
        gone.sock.close()
        run.command(Stop(save=False))
        assert run.process.wait(SOON) == 0


def test_the_process_exits_with_its_own_error_after_a_bad_command_and_a_crash(
    tmp_path: Path,
) -> None:
    with steered(tmp_path, CRASH_AT=60) as run, dashboard(run) as over:
        with run.client("operator", **{"Idempotency-Key": "k"}) as client:
            bad = {"interventions": [{"kind": "set_lr", "lr": 1e-4}]}
            assert client.post("/v1/commands", json=bad).status_code == 422
        assert run.process.wait(SOON) == 1
        assert over.wait(SOON)
        assert "the script's own fault" in run.errors()
        assert run.said()[-1]["step"] == 59


# --- durability -------------------------------------------------------------------------------


def test_every_command_can_be_read_when_the_process_is_gone_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    with steered(tmp_path) as run:
        done = [run.command(i).id for i in (ScaleLR(factor=0.5), Note(text="hm"), Pause())]
        run.kill()
        told = autopilot("log", run.folder)
        assert told.returncode == 0, told.stderr
        with Journal.read(run.folder / "journal.sqlite") as journal:
            journal.verify()
            applied = [e for e in journal.events() if e.kind == "applied"]
        assert [event.body["record"]["id"] for event in applied] == done
        assert {event.actor for event in applied} == {"human:kim"}
        assert all(event.time > 0 for event in applied)
        run.go_on()
        run.await_steps(12)
        with run.person() as person:
            assert [record.id for record in person.proposals()] == done
            assert person.checkpoints()
        said = run.said()[-1]
        assert said["used"][0] == pytest.approx(0.01 / (1 + (said["step"] - 1) / 1000), rel=1e-6)


def test_events_are_not_lost_to_a_late_client_and_come_without_a_gap(tmp_path: Path) -> None:
    with steered(tmp_path, pause=0.0) as run:
        with run.person() as person:
            for number in range(40):
                person.command((Note(text=f"n{number}"),))
        run.await_steps(300)
        seqs: list[int] = []
        kinds: list[str] = []
        while len([kind for kind in kinds if kind == "applied"]) < 40:
            last = {"Last-Event-ID": str(seqs[-1])} if seqs else {}
            with (
                run.client("viewer", **last) as client,
                client.stream("GET", "/v1/events") as stream,
            ):
                lines = iter(stream.iter_lines())
                for _ in range(50):  # and is lost again and again
                    line = next(lines)
                    if line.startswith("data: "):
                        event = strict(line[6:])
                        seqs.append(event["seq"])
                        kinds.append(event["kind"])
        assert seqs == list(range(1, len(seqs) + 1))
        assert kinds[0] == "run_started"


def test_damaged_checkpoints_are_never_loaded_and_the_newest_sound_one_is(tmp_path: Path) -> None:
    with steered(tmp_path) as run:
        run.await_steps(45)
        run.kill()
        found = sorted((run.folder / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))
        sound, missing, flipped, torn = found[-4:]
        shutil.rmtree(missing)
        missing.mkdir()
        content = bytearray((flipped / "state.pt").read_bytes())
        content[len(content) // 2] ^= 1
        (flipped / "state.pt").write_bytes(content)
        (torn / "state.pt").write_bytes((torn / "state.pt").read_bytes()[:1000])
        first = {said["step"]: said["loss"] for said in run.said()}
        count = len(run.said())
        run.go_on()
        run.await_steps(35)
        again = run.said()[count:]
        assert again[0]["step"] == int(sound.name[5:]) + 1
        repeated = {said["step"]: said["loss"] for said in again if said["step"] in first}
        assert repeated == {step: first[step] for step in repeated}, "bit for bit"
        assert len(repeated) >= 30


# --- NaN --------------------------------------------------------------------------------------


def test_a_nan_breaks_neither_a_route_nor_a_stream_and_is_valid_json(tmp_path: Path) -> None:
    with steered(tmp_path, NAN_AT=20) as run:
        run.await_steps(30)
        with run.client("viewer") as client:
            for path in (
                "/v1/run", "/v1/rows", "/v1/metrics", "/v1/metrics?names=loss,quality&points=50",
                "/v1/findings", "/v1/episodes?closed=true", "/v1/journal", "/v1/checkpoints",
            ):  # fmt: skip
                answer = client.get(path)
                assert answer.status_code == 200, path
                strict(answer.text)
            assert client.get("/v1/run").json()["last_values"]["loss"] == "NaN"
            assert client.get("/v1/rows").json()[-1]["values"]["quality"] == "-Infinity"
            assert 'metric="loss"} NaN' in client.get("/metrics").text
            kinds = set()
            with client.stream("GET", "/v1/events") as stream:
                for line in stream.iter_lines():
                    if line.startswith("data: "):
                        kinds.add(strict(line[6:])["kind"])
                    if "finding" in kinds:
                        break
        assert autopilot_json("status", run.folder)["run"]["last_values"]["loss"] == "NaN"
        run.await_steps(2)


# --- ports, sessions, trajectories -------------------------------------------------------------


def test_a_second_run_on_the_same_port_trains_on_and_is_never_taken_for_the_first(
    tmp_path: Path,
) -> None:
    (tmp_path / "second").mkdir()
    with steered(tmp_path) as first:
        port = first.url.rsplit(":", 1)[1]
        with steered(tmp_path / "second", AUTOPILOT_PORT=port) as second:
            second.await_steps(3)
            assert "another process listens there" in second.errors(), "loudly"
            with pytest.raises(NotARun, match="has no control API"):
                connect(str(second.folder), "operator", "kim")
            stale = json.loads((second.folder / "run.json").read_text())
            (second.folder / "run.json").write_text(json.dumps({**stale, "url": first.url}))
            with (
                connect(str(second.folder), "operator", "kim") as mistaken,
                pytest.raises(Forbidden),
            ):
                mistaken.command((Stop(),))
            second.await_steps(3)
        first.await_steps(3)
        with first.person() as person:
            assert person.proposals() == []


def plain(net: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path | None) -> list[str]:
    """Losses of a few steps, with a session or without."""
    losses = []

    def step(batch: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = net(batch).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item().hex())
        return loss

    batches = [torch.full((3, 4), float(n)) for n in range(8)]
    if folder is None:
        for batch in batches:
            step(batch)
        return losses
    with Session(net, optimizer, run_dir=folder) as session:
        for batch in session.batches(batches):
            session.report(loss=step(batch))
    return losses


def test_a_second_session_in_the_same_process_is_like_the_first(tmp_path: Path) -> None:
    found = []
    for folders in ((None, None), (tmp_path / "a", tmp_path / "b")):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.3))
        optimizer = torch.optim.AdamW(net.parameters())
        found.append([plain(net, optimizer, folder) for folder in folders])
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
    assert found[0] == found[1], "bit for bit, and nothing of the first session is left"
    for folder in ("a", "b"):
        with Journal.read(tmp_path / folder / "journal.sqlite") as journal:
            assert len(journal.rows("main")) == 8


def test_without_interventions_the_trajectory_is_that_of_the_bare_loop_to_the_last_bit(
    tmp_path: Path,
) -> None:
    command = [sys.executable, str(SCRIPTS / "steered.py"), "80", "0"]
    bare = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env=environment(BARE=1)
    )
    expected = [json.loads(line)["loss"] for line in bare.stdout.splitlines()]
    with steered(tmp_path, steps=80, pause=0.01) as run, dashboard(run):
        assert run.process.wait(60) == 0
    assert [said["loss"] for said in run.said()] == expected
    assert len(expected) == 80
