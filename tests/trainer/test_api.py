"""The control API over a real socket, before the real control plane."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from autopilot.control import ControlPlane
from autopilot.errors import BadInput, JournalError, OutOfBounds, StaleProposal, Unsupported
from autopilot.journal import Journal
from autopilot.policy import Policy
from autopilot.schema import Capabilities, CheckpointInfo, Note, Proposal, Row, Setting
from autopilot_trainer.api import build_app
from autopilot_trainer.auth import make_tokens, read_tokens, write_tokens
from autopilot_trainer.listening import Listening
from autopilot_trainer.server import ControlServer

TOKENS = make_tokens()
NOTE = {"interventions": [{"kind": "note", "text": "hello"}]}
FINDING = {
    "kind": "loss_spike", "tier": "alarm", "severity": "warn", "metric": "loss", "step": 1,
    "score": "NaN", "message": "m", "detector": "mine",
}  # fmt: skip


class Side:
    """A training process that only supports remarks."""

    def capabilities(self) -> Capabilities:
        lr = Setting(name="lr", value=0.1)
        return Capabilities(interventions=("note", "pause"), settings={"lr": lr})

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        return ()

    def in_force(self) -> None:
        return None

    def phases(self) -> frozenset[str]:
        return frozenset()


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    journal = Journal.create(":memory:", run_id="r1", name="demo")
    plane = ControlPlane(journal, Policy(), Side(), policy_text="autonomy = 'act'\n")
    plane.start({})
    yield plane
    plane.end("ended", "test over")


@pytest.fixture
def server(plane: ControlPlane) -> Iterator[ControlServer]:
    server = ControlServer(build_app(plane, TOKENS))
    server.start()
    yield server
    server.stop()


def client(server: ControlServer, role: str | None = "viewer", **headers: str) -> httpx2.Client:
    if role is not None:
        headers["Authorization"] = f"Bearer {getattr(TOKENS, role)}"
    return httpx2.Client(base_url=server.url, headers=headers, timeout=10, trust_env=False)


def remark(plane: ControlPlane, text: str) -> None:
    proposal = Proposal(interventions=(Note(text=text),))
    plane.propose(proposal, actor="agent:test", key=text)


def raw(server: ControlServer, *parts: bytes, wait: float = 3.0) -> bytes:
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while b"\r\n\r\n" not in answer and (read := connection.recv(65536)):
            answer += read
    return answer


ROUTES: list[tuple[str, str, str, Any]] = [
    ("GET", "/v1/run", "viewer", None),
    ("GET", "/v1/metrics", "viewer", None),
    ("GET", "/v1/rows", "viewer", None),
    ("GET", "/v1/journal", "viewer", None),
    ("GET", "/v1/checkpoints", "viewer", None),
    ("GET", "/v1/policy", "viewer", None),
    ("GET", "/v1/episodes", "viewer", None),
    ("GET", "/v1/findings", "viewer", None),
    ("GET", "/v1/proposals", "viewer", None),
    ("GET", "/v1/proposals/none", "viewer", None),
    ("GET", "/v1/openapi.json", "viewer", None),
    ("GET", "/metrics", "viewer", None),
    ("POST", "/v1/proposals", "agent", NOTE),
    ("POST", "/v1/findings", "agent", FINDING),
    ("POST", "/v1/heartbeat", "agent", {"seen_seq": 1}),
    ("POST", "/v1/commands/none/revert", "agent", None),
    ("POST", "/v1/commands", "operator", NOTE),
    ("POST", "/v1/proposals/none/decision", "operator", {"decision": "approve", "digest": "x"}),
    ("POST", "/v1/commands/none/confirm", "operator", None),
    ("POST", "/v1/breaker/reset", "operator", None),
    ("GET", "/v1/guidance", "viewer", None),
    ("POST", "/v1/guidance", "operator", {"text": "go easy"}),
    ("POST", "/v1/guidance/none/withdraw", "operator", None),
]
RANK = {None: -1, "viewer": 0, "agent": 1, "operator": 2}


def test_every_route_asks_for_its_role(server: ControlServer) -> None:
    for role, rank in RANK.items():
        with client(server, role, **{"Idempotency-Key": f"k-{role}"}) as http:
            for method, path, least, body in ROUTES:
                answer = http.request(method, path, json=body)
                place = f"{role} {method} {path}: {answer.text}"
                if role is None:
                    assert answer.status_code == 401, place
                    assert answer.headers["www-authenticate"] == "Bearer"
                elif rank < RANK[least]:
                    assert answer.status_code == 403, place
                    assert answer.json()["type"] == "urn:autopilot:forbidden"
                elif "none" in path:
                    assert answer.status_code == 404, place
                else:
                    assert answer.status_code in (200, 201, 204), place


def test_the_matrix_names_every_route(plane: ControlPlane) -> None:
    described = build_app(plane, TOKENS).openapi()["paths"]
    offered = {
        (method.upper(), path.replace("{id}", "none"))
        for path, methods in described.items()
        for method in methods
    }
    covered = {(method, path) for method, path, _, _ in ROUTES}
    assert offered - covered == {("GET", "/healthz"), ("GET", "/v1/events")}


def test_health_is_open_and_says_nothing(server: ControlServer) -> None:
    with client(server, None) as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        assert http.get("/v1/events").status_code == 401
        assert http.get("/docs").status_code == 401
        wrong = http.get("/v1/run", headers={"Authorization": "Bearer " + "x" * 43})
        assert wrong.status_code == 401
        assert http.get("/v1/run", headers={"Authorization": "Basic eDp5"}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7007", ""])
def test_foreign_hosts_are_refused(server: ControlServer, host: str) -> None:
    with client(server, Host=host) as http:
        for path in ("/v1/run", "/healthz"):
            assert http.get(path).status_code == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_other_origins_are_refused(server: ControlServer, origin: str) -> None:
    with client(server, "operator", Origin=origin) as http:
        answer = http.post("/v1/commands", json=NOTE, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 403
        assert http.options("/v1/commands").status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_the_own_origin_passes(server: ControlServer) -> None:
    with client(server, Origin=server.url) as http:
        assert http.get("/v1/run").status_code == 200


def test_bodies_are_bounded_with_and_without_a_length(server: ControlServer) -> None:
    head = (
        f"POST /v1/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKENS.agent}\r\n"
    ).encode()
    assert b" 413 " in raw(server, head + b"Content-Length: 300000\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    assert b" 413 " in raw(server, head + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 5)
    assert b" 401 " in raw(
        server, b"POST /v1/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ('{"interventions": []}', "interventions", "at least 1"),
        ('{"interventions": [{"kind": "scale_lr", "factor": NaN}]}', "factor", "finite"),
        (
            '{"interventions": [{"kind": "scale_lr", "factor": -1}]}',
            "factor",
            "greater than or",
        ),
        ('{"interventions": [{"kind": "run_shell"}]}', "interventions.0", "does not match"),
        ('{"interventions": [{"kind": "pause"}], "actor": "human:x"}', "actor", "not permitted"),
        ('{"interventions": [{"kind": "note", "text": "\\ud800"}]}', "text", "unicode"),
        ("{nope", "1", "JSON"),
        ("", "body", "required"),
    ],
)
def test_what_is_wrong_is_named(server: ControlServer, body: str, field: str, said: str) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    with client(server, "agent", **headers) as http:
        answer = http.post("/v1/proposals", content=body)
    problem = answer.json()
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["field"].endswith(field), problem
    assert said in problem["detail"], problem
    assert set(problem["errors"][0]) == {"field", "expected", "value"}


def test_unknown_routes_and_methods_are_problems(server: ControlServer) -> None:
    with client(server) as http:
        for answer, status in ((http.get("/nope"), 404), (http.delete("/v1/run"), 405)):
            assert answer.status_code == status
            assert answer.json()["status"] == status


def test_a_proposal_needs_a_key_and_is_filed_once(server: ControlServer) -> None:
    with client(server, "agent") as http:
        answer = http.post("/v1/proposals", json=NOTE)
        assert answer.status_code == 422
        assert "idempotency-key" in answer.json()["field"].lower()
        first, again = (
            http.post("/v1/proposals", json=NOTE, headers={"Idempotency-Key": "k1"})
            for _ in range(2)
        )
        assert first.json()["id"] == again.json()["id"]
        assert len(http.get("/v1/proposals").json()) == 1


def test_the_actor_comes_from_the_token(server: ControlServer) -> None:
    name = {"X-Autopilot-Name": "human:eve; agent", "Idempotency-Key": "k"}
    with client(server, "agent", **name) as http:
        assert http.post("/v1/proposals", json=NOTE).json()["actor"] == "agent:humaneveagent"
        for field in ("id", "episode", "claimed_by"):
            answer = http.post("/v1/findings", json={**FINDING, field: "mine"})
            assert answer.status_code == 422
            assert field in answer.json()["detail"]
        claimed = http.post("/v1/findings", json=FINDING).json()
        assert claimed["claimed_by"] == "agent:humaneveagent"
        assert claimed["score"] == "NaN"
    with client(server, "operator", **{"Idempotency-Key": "k2"}) as http:
        assert http.post("/v1/commands", json=NOTE).json()["actor"] == "human:unnamed"


def test_a_diverged_run_can_still_be_read(server: ControlServer, plane: ControlPlane) -> None:
    plane.observe(Row(1, {"loss": 2.0}))
    plane.observe(Row(2, {"loss": math.nan, "grad_norm": math.inf}))
    plane.tick()
    with client(server) as http:
        assert http.get("/v1/rows").json()[-1]["values"] == {
            "loss": "NaN",
            "grad_norm": "Infinity",
        }
        assert http.get("/v1/run").json()["last_values"]["loss"] == "NaN"
        curve = http.get("/v1/metrics?names=loss,grad_norm&points=10").json()["series"]
        assert curve == {"loss": [[1, 2.0], [2, "NaN"]], "grad_norm": [[2, "Infinity"]]}
        rows = http.get("/v1/metrics", params={"names": "loss", "from_step": 2}).json()["rows"]
        assert [row["values"] for row in rows] == [{"loss": "NaN"}]
        text = http.get("/metrics").text
        assert 'autopilot_metric{run="demo",metric="loss"} NaN' in text
        assert http.get("/v1/rows?branch=nope").status_code == 404
        assert http.get("/v1/metrics?points=10").status_code == 422


def events_of(lines: Iterator[str], count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = next(lines)
        if line.startswith("data: "):
            found.append(json.loads(line[6:]))
    return found


def test_the_event_stream_resumes_without_a_gap(server: ControlServer, plane: ControlPlane) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            remark(plane, f"n{number}")
            number += 1
            time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    seqs: list[int] = []
    try:
        with client(server) as http:
            for _ in range(5):
                headers = {"Last-Event-ID": str(seqs[-1])} if seqs else {}
                with http.stream("GET", "/v1/events", headers=headers) as stream:
                    assert stream.headers["content-type"].startswith("text/event-stream")
                    seqs += [event["seq"] for event in events_of(stream.iter_lines(), 40)]
    finally:
        stop.set()
        writer.join()
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_quiet_stream_gets_a_new_event_at_once(
    server: ControlServer, plane: ControlPlane
) -> None:
    last = plane.info().seq
    with client(server) as http, http.stream("GET", f"/v1/events?after={last}") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 1000"
        time.sleep(0.3)
        begun = time.monotonic()
        remark(plane, "now")
        assert events_of(lines, 1)[0]["seq"] == last + 1
        assert time.monotonic() - begun < 0.5


def test_a_long_poll_waits_and_a_far_one_disturbs_nobody(
    server: ControlServer, plane: ControlPlane
) -> None:
    last = plane.info().seq
    with client(server) as http:
        assert http.get(f"/v1/journal?after={last}").json() == []
        begun = time.monotonic()
        assert http.get(f"/v1/journal?after={last}&wait=0.3").json() == []
        assert 0.25 < time.monotonic() - begun < 1.5
        far = threading.Thread(target=lambda: http.get("/v1/journal?after=999999&wait=2"))
        far.start()
        time.sleep(0.2)
        timer = threading.Timer(0.3, remark, (plane, "now"))
        timer.start()
        begun = time.monotonic()
        found = http.get(f"/v1/journal?after={last}&wait=10").json()
        assert found[0]["seq"] == last + 1
        assert time.monotonic() - begun < 1.5
        timer.join()
        far.join()


def test_many_long_polls_leave_room_for_others(server: ControlServer, plane: ControlPlane) -> None:
    last = plane.info().seq

    def poll() -> None:
        with client(server) as http:
            http.get(f"/v1/journal?after={last}&wait=20")

    threads = [threading.Thread(target=poll) for _ in range(50)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    with client(server) as http:
        begun = time.monotonic()
        assert http.get("/v1/run").status_code == 200
        assert time.monotonic() - begun < 1
    remark(plane, "now")
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_it_stops_whoever_is_connected(plane: ControlPlane) -> None:
    server = ControlServer(build_app(plane, TOKENS))
    server.start()
    port = int(server.url.rsplit(":", 1)[1])
    idle = socket.create_connection(("127.0.0.1", port))
    half = socket.create_connection(("127.0.0.1", port))
    half.sendall(b"POST /v1/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n")
    with client(server) as http, http.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        events_of(lines, 1)
        poll = threading.Thread(target=lambda: poll_until_closed(server))
        poll.start()
        time.sleep(0.2)
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 2
        assert not server._thread.is_alive()
        list(lines)
    poll.join(5)
    idle.close()
    half.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_client_that_stops_reading_is_cut_off(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopilot_trainer.api.gate.SEND_SECONDS", 0.5)
    for number in range(1500):
        remark(plane, f"{number}" + "x" * 3000)
    server = ControlServer(build_app(plane, TOKENS))
    port = int(server.start().rsplit(":", 1)[1])
    request = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKENS.viewer}"
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", port))
        stalled.sendall(f"{request}\r\n\r\n".encode())
        deadline = time.monotonic() + 10
        while not server._server.server_state.tasks and time.monotonic() < deadline:
            time.sleep(0.01)
        while server._server.server_state.tasks and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not server._server.server_state.tasks
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 1.5


def poll_until_closed(server: ControlServer) -> None:
    with client(server) as http:
        assert http.get("/v1/journal?after=9999&wait=30").json() == []


@pytest.mark.parametrize("ending", ["server.stop()", "pass", "raise SystemExit", "1 / 0"])
def test_the_process_exits_with_a_client_connected(ending: str) -> None:
    code = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import test_api as t\n"
        "from autopilot.control import ControlPlane\n"
        "plane = ControlPlane(t.Journal.create(':memory:', run_id='r', name='n'),"
        " t.Policy(), t.Side())\n"
        "plane.start({})\n"
        "from autopilot_trainer.auth import Tokens\n"
        "tokens = Tokens(viewer='v' * 20, agent='a' * 20, operator='o' * 20)\n"
        "server = t.ControlServer(t.build_app(plane, tokens))\n"
        "print(server.start(), flush=True)\n"
        "sys.stdin.readline()\n"
        f"{ending}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdin
        url = process.stdout.readline().strip()
        headers = {"Authorization": "Bearer " + "v" * 20}
        with httpx2.Client(base_url=url, headers=headers, trust_env=False) as http:  # noqa: SIM117
            with http.stream("GET", "/v1/events") as stream:
                events_of(stream.iter_lines(), 1)
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.wait(5) == (1 if "/" in ending else 0)


def test_a_port_that_is_taken_is_said_at_once(server: ControlServer, plane: ControlPlane) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(BadInput, match=f"127.0.0.1:{port}: another process listens"):
        ControlServer(build_app(plane, TOKENS), Listening(port=port))


def test_it_serves_a_unix_socket_for_its_owner(tmp_path: Path, plane: ControlPlane) -> None:
    path = tmp_path / "api.sock"
    server = ControlServer(build_app(plane, TOKENS), uds=str(path))
    server.start()
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as http:
            assert http.get("http://localhost/healthz").status_code == 200
        with pytest.raises(BadInput, match="in use"):
            ControlServer(build_app(plane, TOKENS), uds=str(path))
    finally:
        server.stop()
    assert not path.exists()


class Failing(ControlPlane):
    """A plane that answers every question about its policy with one error."""

    error: Exception

    def policy_text(self) -> str:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "fields"),
    [
        (Unsupported("no"), 422, {"type": "urn:autopilot:unsupported"}),
        (OutOfBounds("no"), 422, {"type": "urn:autopilot:out-of-bounds"}),
        (StaleProposal("no", "lr is 0.2"), 409, {"changed": "lr is 0.2"}),
        (JournalError("no"), 503, {"type": "urn:autopilot:journal"}),
        (ZeroDivisionError("secret path"), 500, {"type": "about:blank"}),
        (TimeoutError("secret path"), 500, {"type": "about:blank"}),
    ],
)
def test_errors_arrive_as_problems(error: Exception, status: int, fields: dict[str, str]) -> None:
    plane = Failing(Journal.create(":memory:", run_id="r", name="n"), Policy(), Side())
    plane.error = error
    server = ControlServer(build_app(plane, TOKENS))
    server.start()
    try:
        with client(server) as http:
            answer = http.get("/v1/policy")
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
            assert fields.items() <= answer.json().items()
            assert "secret" not in answer.text
            faults = http.get("/v1/run").json()["faults"]
            assert bool(faults) == (status == 500)
    finally:
        server.stop()
        plane.end("ended", "over")


def test_an_idle_server_costs_next_to_nothing(server: ControlServer) -> None:
    with client(server) as http:
        http.get("/v1/run")
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(2)
    assert (time.process_time() - before) / 2 < 0.002


def test_tokens_are_for_the_owner_only(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        path = write_tokens(tmp_path, TOKENS)
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_tokens(tmp_path) == TOKENS
    assert TOKENS.viewer not in repr(TOKENS)
    write_tokens(tmp_path, make_tokens())
    assert read_tokens(tmp_path) != TOKENS
    assert [p.name for p in tmp_path.iterdir()] == ["tokens.json"]
    path.write_text("{}")
    with pytest.raises(BadInput, match="does not hold one for each role"):
        read_tokens(tmp_path)
    with pytest.raises(BadInput, match="No such file"):
        read_tokens(tmp_path / "none")
