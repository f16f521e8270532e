"""The doors of a run that trains: who may come in, how often, how long, and what may be named."""

import contextlib
import gc
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trainer.live import Live, live
from trainer.loops import until

from autopilot.client import HttpRun
from autopilot.errors import Unreachable
from autopilot.journal import Journal
from autopilot.schema import Note, Proposal
from autopilot_trainer.auth import Role
from autopilot_trainer.connections import most_connections

PROBLEM = "application/problem+json"
NOTE = {"interventions": [{"kind": "note", "text": "hello"}]}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as training:
        yield training


def dial(run: Live) -> socket.socket:
    return socket.create_connection(("127.0.0.1", run.port), timeout=30)


def request(run: Live, method: str, path: str, *headers: str, role: Role = "viewer") -> bytes:
    token = getattr(run.tokens, role)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def heard(connection: socket.socket) -> bytes:
    """Everything that comes until the other side ends it."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while read := connection.recv(65536):
            answer += read
    return answer


def stream(run: Live, role: Role = "viewer") -> socket.socket:
    """An event stream of which nothing but the first line is read."""
    connection = dial(run)
    connection.sendall(request(run, "GET", "/v1/events", role=role))
    answer = connection.recv(9)
    assert answer == b"HTTP/1.1 ", answer
    return connection


def answers(run: Live, role: Role = "operator") -> int:
    with run.client(role) as http:
        return int(http.get("/v1/run").status_code)


# --- who comes in ---------------------------------------------------------------------------


def test_no_answer_ever_lets_another_origin_read_it(run: Live) -> None:
    with run.client("operator") as http:
        for origin in (run.url, "https://evil.example", "null"):
            for method in ("GET", "POST", "OPTIONS", "PUT", "HEAD"):
                for path in ("/v1/run", "/v1/commands", "/healthz", "/nope"):
                    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                    answer = http.request(method, path, headers=preflight)
                    assert not [h for h in answer.headers if h.startswith("access-control")]
                    assert answer.status_code < 500


def test_nothing_tells_a_stranger_what_there_is(run: Live) -> None:
    with run.client(None) as http:
        for path in ("/", "/docs", "/redoc", "/openapi.json", "/v1/openapi.json", "/v1/run", "/x"):
            answer = http.get(path)
            assert answer.status_code == 401
            assert answer.headers["content-type"] == PROBLEM
            assert "/v1" not in answer.text


def test_the_journal_says_who_did_it_by_the_token_whatever_the_client_claims(run: Live) -> None:
    claim = {"X-Autopilot-Name": "human:kim", "Idempotency-Key": "k"}
    with run.client("agent", **claim) as http:
        assert http.post("/v1/proposals", json=NOTE).status_code == 201
        assert http.post("/v1/proposals", json={**NOTE, "actor": "human:kim"}).status_code == 422
        assert http.post("/v1/commands", json=NOTE).status_code == 403
    with run.client("operator", **claim) as http:
        assert http.post("/v1/commands", json=NOTE).status_code == 201
    with run.client("viewer", **claim) as http:
        assert http.post("/v1/proposals", json=NOTE).status_code == 403
        events = http.get("/v1/journal").json()
    filed = [event["actor"] for event in events if event["kind"] == "proposal"]
    assert filed == ["agent:humankim", "human:humankim"]


def test_a_token_outside_its_header_is_refused_and_recorded_nowhere(
    run: Live, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = run.tokens.operator
    told = {"interventions": [{"kind": "note", "text": f"use {secret}"}]}
    with run.client("operator", **{"Idempotency-Key": "k"}) as http:
        refused = [
            http.get("/v1/run", params={"token": secret}),
            http.get(f"/v1/proposals/{secret}"),
            http.get("/v1/run", headers={"X-Autopilot-Name": secret}),
            http.post("/v1/commands", json=NOTE, headers={"Idempotency-Key": secret}),
            http.post("/v1/commands", json=told),
            http.post("/v1/guidance", json={"text": secret}),
        ]
        assert {answer.status_code for answer in refused} == {422}
        assert all(secret not in answer.text for answer in refused)
        assert http.post("/v1/commands", json=NOTE).status_code == 201
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "tokens.json"]
    assert any(b"hello" in path.read_bytes() for path in written)
    for path in written:
        for role in ("viewer", "agent", "operator"):
            assert getattr(run.tokens, role).encode() not in path.read_bytes(), path
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    assert all(secret not in record.getMessage() for record in ours)


def test_tokens_that_others_could_read_are_made_anew(tmp_path: Path) -> None:
    with live(tmp_path, checkpoint_every=5) as first:
        first.await_steps(6)
    kept = tmp_path / "run" / "tokens.json"
    with live(tmp_path, resume=True) as second:
        assert second.tokens == first.tokens
        second.await_steps(1)
    kept.chmod(0o640)
    with live(tmp_path, resume=True) as third:
        assert third.tokens != first.tokens
        assert kept.stat().st_mode & 0o777 == 0o600


# --- how often, how large --------------------------------------------------------------------


def test_who_asks_too_often_is_told_to_wait_and_nobody_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopilot_trainer.api.rates.REQUESTS", (20.0, 2.0))
    with live(tmp_path) as run:
        with run.client("viewer") as http:
            found = [http.get("/v1/proposals") for _ in range(60)]
            late = [answer for answer in found if answer.status_code == 429]
            assert 20 <= len(found) - len(late) < 60
            assert {answer.headers["content-type"] for answer in late} == {PROBLEM}
            assert {answer.json()["type"] for answer in late} == {"urn:autopilot:too-many-requests"}
            wait = int(late[-1].headers["retry-after"])
            assert answers(run, "operator") == answers(run, "agent") == 200
            time.sleep(wait)
            assert http.get("/v1/proposals").status_code == 200
        with run.client(None) as http:
            refused = [http.get("/v1/run").status_code for _ in range(40)]
            assert set(refused) == {401, 429}
            assert http.get("/healthz").status_code == 200
        run.await_steps(5)


def test_what_an_agent_may_have_journaled_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopilot_trainer.api.rates.CHANGES", (5.0, 0.01))
    with live(tmp_path) as run, HttpRun(run.url, run.tokens.agent, name="eager") as agent:

        def remark(number: int) -> None:
            agent.propose(Proposal(interventions=(Note(text=str(number)),)), key=str(number))

        for number in range(5):
            remark(number)
        with pytest.raises(Unreachable, match="slow down"):
            remark(6)
        assert len(agent.proposals()) == 5
        assert agent.info().step > 0
    with live(tmp_path / "large") as run, run.client("agent") as http:
        large = {"seen_seq": 0, "no_proposal": {"kind": "benign", "reason": "x" * 200_000}}
        assert http.post("/v1/heartbeat", json=large).status_code == 204
        assert http.post("/v1/heartbeat", json={"seen_seq": 0}).status_code == 429


def test_an_ordinary_pilot_and_its_dashboards_never_meet_the_bound(run: Live) -> None:
    with run.client("agent", **{"Idempotency-Key": "k"}) as http:
        for _ in range(100):
            assert http.get("/v1/journal").status_code == 200
            assert http.get("/v1/rows").status_code == 200
            assert http.post("/v1/heartbeat", json={"seen_seq": 0}).status_code == 204


GARBAGE = {
    "no http": b"hello\r\n\r\n",
    "a tls client": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": b"POST /v1/run HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "no length": b"POST /v1/run HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    "a huge header": b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 8_000 + b"\r\n",
    "a nul": b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.0\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "another's url": b"GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "an odd method": b"BREW /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
def test_what_is_no_request_is_a_problem_document_and_breaks_nothing(
    run: Live, sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with dial(run) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        problem = json.loads(answer.read())
    assert 400 <= answer.status < 500
    assert answer.headers["content-type"] == PROBLEM
    assert problem["status"] == answer.status
    assert answers(run) == 200
    run.await_steps(2)
    assert capfd.readouterr().err == "", "strangers cannot fill the training's output"


# --- how long --------------------------------------------------------------------------------


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """A run that waits less long than usual for slow clients."""
    monkeypatch.setattr("autopilot_trainer.api.gate.BODY_SECONDS", 1.0)
    monkeypatch.setattr("autopilot_trainer.server._SWEEP", 0.7)
    with live(tmp_path) as training:
        yield training


def test_slow_clients_are_cut_off_while_others_are_answered(impatient: Live) -> None:
    run = impatient
    head = request(
        run, "POST", "/v1/heartbeat", "Content-Type: application/json", "Content-Length: 999",
        role="agent",
    )  # fmt: skip
    half = {"nothing": b"", "half a head": head[:40], "a head": head, "half": head + b'{"seen'}
    slow = {name: dial(run) for name in half}
    for name, sent in half.items():
        slow[name].sendall(sent)
    dripping = dial(run)
    until_cut = time.monotonic() + 30
    with contextlib.suppress(ConnectionError):
        for sign in head[:-4] + b"\r\nX-Drip: " + b"x" * 10_000:
            assert time.monotonic() < until_cut, "a client that drips is never cut off"
            dripping.sendall(bytes([sign]))
            time.sleep(0.05)
            assert answers(run) == 200
    for name, connection in slow.items():
        answer = heard(connection)
        assert (b" 408 " in answer) == (name in ("a head", "half")), name
        connection.close()
    dripping.close()
    run.await_steps(5)


def test_streams_that_nobody_reads_hold_up_neither_memory_nor_others(
    run: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopilot_trainer.api.rates.CHANGES", (1e9, 1e9))
    with run.client("agent") as http:
        for number in range(300):
            text = {"kind": "note", "text": f"{number} {'x' * 3_900}"}
            key = {"Idempotency-Key": str(number)}
            filed = http.post("/v1/proposals", json={"interventions": [text]}, headers=key)
            assert filed.status_code == 201
    stalled = [stream(run) for _ in range(20)]
    time.sleep(1.0)
    server = run.session._server
    assert server is not None
    held = [c.transport.get_write_buffer_size() for c in server._server.server_state.connections]
    assert len(held) >= 20
    assert max(held) < 400_000, "a stream hands out a helping, not the journal"
    with run.client("viewer") as http, http.stream("GET", "/v1/events") as read:
        seqs = [int(line[4:]) for line in until_seq(read.iter_lines(), 300)]
    assert seqs == list(range(1, len(seqs) + 1))
    run.await_steps(5)
    for connection in stalled:
        connection.close()


def until_seq(lines: Iterator[str], last: int) -> Iterator[str]:
    for line in lines:
        if line.startswith("id: "):
            yield line
            if int(line[4:]) >= last:
                return


def test_streams_are_counted_for_each_role_and_given_back(
    run: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopilot_trainer.api.rates.WAITING", 3)
    held = [stream(run) for _ in range(3)]
    with run.client("viewer") as http:
        refused = http.get("/v1/events")
        assert (refused.status_code, refused.headers["content-type"]) == (429, PROBLEM)
        assert int(refused.headers["retry-after"]) > 0
        assert http.get("/v1/journal").status_code == 429
        assert http.get("/v1/run").status_code == 200
        stream(run, "operator").close()
        for connection in held:
            connection.close()
        until(lambda: http.get("/v1/journal").status_code == 200)


def test_more_than_a_thousand_idle_connections_keep_nobody_out(run: Live) -> None:
    kept = stream(run, "agent")
    server = run.session._server
    assert server is not None
    strangers = []
    for _ in range(1_200):
        strangers.append(dial(run))
    until(lambda: len(server._server.server_state.connections) <= most_connections())
    assert answers(run) == 200
    with run.client("operator", **{"Idempotency-Key": "k"}) as http:
        note = {"interventions": [{"kind": "note", "text": "still here"}]}
        assert http.post("/v1/commands", json=note).status_code == 201
    seen = b""
    while b"still here" not in seen:
        read = kept.recv(65536)
        assert read, "the stream of one with a token outlives strangers"
        seen += read
    run.await_steps(20)
    for connection in [*strangers, kept]:
        connection.close()
    gc.collect()


# --- what may be named -----------------------------------------------------------------------

NAMES: list[dict[str, Any]] = [
    {"kind": "branch", "name": "/tmp/elsewhere"},
    {"kind": "branch", "name": "../../elsewhere"},
    {"kind": "branch", "name": "a/b"},
    {"kind": "branch", "name": "a\x00b"},
    {"kind": "branch", "name": "new", "checkpoint": "../../../etc/passwd"},
    {"kind": "switch_branch", "name": "../main"},
    {"kind": "save_checkpoint", "tag": "../../elsewhere"},
    {"kind": "save_checkpoint", "tag": "/tmp/elsewhere"},
    {"kind": "rollback", "checkpoint": "/etc/passwd"},
    {"kind": "rollback", "checkpoint": "../run/checkpoints"},
    {"kind": "set_module", "module": "__class__", "name": "p", "value": 0.5},
    {"kind": "set_module", "module": "2.__class__.__init__", "name": "p", "value": 0.5},
    {"kind": "set_module", "module": "2", "name": "__dict__", "value": 0.5},
    {"kind": "set_module", "module": "2", "name": "forward", "value": 0.5},
    {"kind": "reset_module", "module": "0.weight"},
    {"kind": "freeze", "module": "0.forward"},
    {"kind": "set_optimizer", "name": "__class__", "value": 1},
    {"kind": "set_optimizer", "name": "param_groups", "value": 1},
    {"kind": "set_knob", "name": "__class__", "value": 1},
    {"kind": "call_action", "name": "save_pretrained", "arguments": {"path": "/tmp/elsewhere"}},
    {"kind": "call_action", "name": "__init__"},
    {"kind": "run_shell", "command": "id"},
]


def test_only_names_from_closed_lists_reach_the_run(run: Live, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if "journal" not in path.name}
    with run.client("operator") as http:
        for number, named in enumerate(NAMES):
            body = {"interventions": [named], "force": True}
            answer = http.post("/v1/commands", json=body, headers={"Idempotency-Key": str(number)})
            assert answer.status_code == 422, (named, answer.text)
            assert answer.headers["content-type"] == PROBLEM
        for path in ("/v1/proposals/..%2F..%2Fetc%2Fpasswd", "/v1/../../etc/passwd", "/v1/run/"):
            assert http.get(path).status_code == 404
        for branch in ("../main", "/etc/passwd", "'; DROP TABLE rows; --"):
            assert http.get("/v1/rows", params={"branch": branch}).status_code == 404
        assert http.get("/v1/proposals").json() == []
    run.await_steps(3)
    assert {path for path in tmp_path.rglob("*") if "journal" not in path.name} == before
    with Journal.read(run.session.run_dir / "journal.sqlite") as journal:
        assert [event for event in journal.events() if event.kind == "fault"] == []
