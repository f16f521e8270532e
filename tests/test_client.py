"""The HTTP client against the real control plane behind a real socket."""

import json
import math
import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from autopilot.client import HttpRun, connect
from autopilot.control import ControlPlane
from autopilot.errors import BadInput, Forbidden, NotARun, NotFound, StaleProposal, Unreachable
from autopilot.journal import Journal
from autopilot.policy import Policy
from autopilot.ports import Run
from autopilot.schema import (
    Capabilities,
    CheckpointInfo,
    Finding,
    NoProposal,
    Note,
    Pause,
    Proposal,
    Row,
)
from autopilot_trainer.api import build_app
from autopilot_trainer.auth import make_tokens, write_tokens
from autopilot_trainer.server import ControlServer

TOKENS = make_tokens()


class Side:
    """A training process that can be paused."""

    def capabilities(self) -> Capabilities:
        return Capabilities(interventions=("note", "pause", "resume"))

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        return (CheckpointInfo(id="c1", step=1, branch="main", kind="snapshot", good=False),)

    def in_force(self) -> None:
        return None

    def phases(self) -> frozenset[str]:
        return frozenset()


@pytest.fixture(autouse=True)
def _no_token_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOPILOT_TOKEN", raising=False)


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    journal = Journal.create(":memory:", run_id="r1", name="demo")
    plane = ControlPlane(journal, Policy(default="ask"), Side(), policy_text="# mine\n")
    plane.start({})
    yield plane
    plane.end("ended", "test over")


@pytest.fixture
def folder(plane: ControlPlane, tmp_path: Path) -> Iterator[Path]:
    server = ControlServer(build_app(plane, TOKENS))
    found = {"name": "demo", "url": server.start(), "pid": os.getpid()}
    (tmp_path / "run.json").write_text(json.dumps(found))
    write_tokens(tmp_path, TOKENS)
    yield tmp_path
    server.stop()


@pytest.fixture
def agent(folder: Path) -> Iterator[HttpRun]:
    with connect(str(folder), "agent", "rules") as run:
        yield run


@pytest.fixture
def operator(folder: Path) -> Iterator[HttpRun]:
    with connect(str(folder), "operator", "kim") as run:
        yield run


def test_it_is_a_run(agent: Run, plane: ControlPlane) -> None:
    plane.observe(Row(1, {"loss": 2.5}, time=1.5, source="shard-3"))
    plane.observe(Row(2, {"loss": math.nan, "grad_norm": -math.inf}))
    plane.tick()
    assert agent.info() == plane.info()
    first, second = agent.rows(last=2)
    assert first == Row(1, {"loss": 2.5}, "main", 1.5, "shard-3")
    assert math.isnan(second.values["loss"])
    assert second.values["grad_norm"] == -math.inf
    assert agent.events(0) == plane.events(0)
    assert agent.episodes() == plane.episodes()
    assert agent.checkpoints() == plane.checkpoints()
    assert agent.proposals() == []
    agent.heartbeat(1)
    agent.heartbeat(1, NoProposal(kind="waiting", reason="quiet"))
    assert plane.info().pilot is not None


def test_curves_come_back_as_floats(agent: HttpRun, plane: ControlPlane) -> None:
    plane.observe(Row(1, {"loss": math.inf}))
    plane.tick()
    assert agent.series(["loss"], points=10) == {"loss": [(1, math.inf)]}
    assert agent.policy_text() == "# mine\n"
    assert agent.closed() == []


def test_a_proposal_goes_its_way(agent: HttpRun, operator: HttpRun) -> None:
    proposal = Proposal(interventions=(Pause(),), rationale="look at this")
    record = agent.propose(proposal, key="k1")
    assert (record.actor, record.status) == ("agent:rules", "pending")
    assert record.digest == proposal.digest()
    assert agent.propose(proposal, key="k1").id == record.id
    with pytest.raises(Forbidden, match="needs the operator"):
        agent.decide(record.id, "approve", digest=record.digest)
    with pytest.raises(StaleProposal) as raised:
        operator.decide(record.id, "approve", digest="0" * 64)
    assert raised.value.changed
    settled = operator.decide(record.id, "deny", digest=record.digest, reason="not now")
    assert settled.status == "denied"
    assert settled.approval is not None
    assert settled.approval.actor == "human:kim"
    assert agent.proposal(record.id) == settled
    assert agent.proposals("denied") == [settled]


def test_a_person_commands(operator: HttpRun, plane: ControlPlane) -> None:
    record = operator.command((Note(text="hello"),), rationale="why not")
    assert record.actor == "human:kim"
    with pytest.raises(NotFound):
        operator.revert("nope/../x")
    with pytest.raises(NotFound):
        operator.confirm("nope")
    operator.reset_breaker()


def test_claims_are_claims(agent: HttpRun) -> None:
    finding = Finding(
        kind="loss_spike",
        tier="alarm",
        severity="warn",
        metric="loss",
        step=1,
        score=math.inf,
        message="m",
        detector="mine",
        claimed_by="human:kim",
    )
    claimed = agent.claim(finding)
    assert (claimed.claimed_by, claimed.score) == ("agent:rules", math.inf)


def test_bad_values_are_named(operator: HttpRun) -> None:
    with pytest.raises(BadInput, match="last"):
        operator.rows(last=0)
    with pytest.raises(NotFound, match="no branch"):
        operator.rows(branch="nope")


def test_waiting_ends_with_the_event(agent: HttpRun, plane: ControlPlane) -> None:
    last = plane.info().seq
    timer = threading.Timer(
        0.2, plane.propose, (Proposal(interventions=(Note(text="x"),)),),
        {"actor": "agent:x", "key": "x"},
    )  # fmt: skip
    timer.start()
    begun = time.monotonic()
    assert agent.events(last, wait=10)[0].seq == last + 1
    assert time.monotonic() - begun < 2
    timer.join()


def test_a_dead_run_is_said_in_one_line() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with HttpRun(url, "t", attempts=2) as run, pytest.raises(Unreachable) as raised:
        run.info()
    assert str(raised.value).startswith(f"no answer from {url}: ")
    assert "\n" not in str(raised.value)


def test_a_silent_or_foreign_server_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with HttpRun(url, "t", attempts=1, timeout=0.2) as run, pytest.raises(Unreachable):
            run.info()
        while True:
            listener.settimeout(0.2)
            try:
                listener.accept()[0].close()
            except TimeoutError:
                break
        thread = threading.Thread(target=answer_once, args=(listener,))
        thread.start()
        with HttpRun(url, "t", attempts=2) as run, pytest.raises(NotARun, match="not as a run"):
            run.info()
        thread.join()


def answer_once(listener: socket.socket) -> None:
    listener.settimeout(5)
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>")


def test_a_lost_connection_is_tried_again(folder: Path) -> None:
    real = json.loads((folder / "run.json").read_text())["url"].rsplit(":", 1)[1]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drop_then_pass, args=(listener, int(real)))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with HttpRun(url, TOKENS.agent) as run:
            record = run.propose(Proposal(interventions=(Pause(),)), key="k")
            assert run.proposals() == [record]
        thread.join()


def drop_then_pass(listener: socket.socket, port: int) -> None:
    """Loses the first answer on its way back, then passes everything on."""
    listener.settimeout(5)
    for lost in (True, False):
        near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            other = {near: far, far: near}
            while True:
                (ready, *_), _, _ = select.select([near, far], [], [], 10)
                passed = ready.recv(65536)
                if not passed or (lost and ready is far):
                    break
                other[ready].sendall(passed)


def test_a_wrong_token_is_forbidden_and_never_shown(folder: Path) -> None:
    url = json.loads((folder / "run.json").read_text())["url"]
    with HttpRun(url, "wrong") as run, pytest.raises(Forbidden, match="bearer token"):
        run.info()
    with pytest.raises(BadInput) as raised:
        HttpRun(url, "secret\n")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://example.com:7007", "http://10.0.0.1", "ftp://localhost", "http://", "http://["]
)
def test_tokens_are_not_sent_anywhere(url: str) -> None:
    with pytest.raises(BadInput):
        HttpRun(url, "t")


def test_a_token_from_the_environment_comes_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = json.loads((folder / "run.json").read_text())["url"]
    with pytest.raises(BadInput, match="AUTOPILOT_TOKEN"):
        connect(url, "viewer", "me")
    monkeypatch.setenv("AUTOPILOT_TOKEN", TOKENS.viewer)
    for named in (url, str(folder)):
        with connect(named, "operator", "me") as run:
            assert run.info().name == "demo"
            with pytest.raises(Forbidden):
                run.reset_breaker()


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, said in (
        ("none", "no such directory"),
        ("file", "not a directory"),
        ("", "run.json"),
    ):
        with pytest.raises(NotARun, match=said):
            connect(str(tmp_path / name), "viewer", "me")
    for text, said in (("{", "JSON"), ("[]", "not what a run writes"), ("{}", "no control API")):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(NotARun, match=said):
            connect(str(tmp_path), "viewer", "me")
    (tmp_path / "run.json").write_text('{"url": "http://127.0.0.1:1"}')
    with pytest.raises(BadInput, match=r"tokens\.json"):
        connect(str(tmp_path), "viewer", "me")
