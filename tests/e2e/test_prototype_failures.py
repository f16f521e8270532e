"""What was measured to fail in the prototype before us: security, bad commands, when they apply."""

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.steered import Steered, steered

from autopilot.errors import Unsupported
from autopilot.schema import (
    Pause,
    ProposalRecord,
    Resume,
    SaveCheckpoint,
    ScaleLR,
    SetLR,
    SetOptimizer,
)

EVIL = "https://evil.example"
PAUSE = {"interventions": [{"kind": "pause"}]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steered]:
    with steered(tmp_path_factory.mktemp("prototype")) as training:
        yield training


def post(run: Steered, path: str, body: Any, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    ours = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(8)}
    with run.client("operator") as http:
        return http.post(path, content=content, headers={**ours, **headers})


def state(run: Steered) -> tuple[Any, ...]:
    with run.person() as person:
        info = person.info()
    settings = {n: s.value for n, s in info.capabilities.settings.items() if "lr" not in n}
    return info.status, info.state_version, info.branch, settings, len(person_records(run))


def person_records(run: Steered) -> list[ProposalRecord]:
    with run.person() as person:
        return person.proposals()


# --- security -------------------------------------------------------------------------------


def test_a_page_of_another_origin_cannot_steer_the_training(run: Steered) -> None:
    before = state(run)
    preflight = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
    with run.client(None) as http:
        for path in ("/v1/commands", "/api/command/"):
            answers = [
                http.options(path, headers=preflight),
                http.post(path, json=PAUSE, headers={"Origin": EVIL}),
                http.post(path, content=json.dumps(PAUSE), headers={"Content-Type": "text/plain"}),
            ]
            for answer in answers:
                assert answer.status_code in (401, 403)
                assert not [h for h in answer.headers if h.startswith("access-control")]
    assert post(run, "/v1/commands", PAUSE, Origin=EVIL).status_code == 403, "even with a token"
    assert state(run) == before
    run.await_steps(2)


def test_a_foreign_host_is_not_answered_for(run: Steered) -> None:
    before = state(run)
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost:1@evil.example"):
        assert post(run, "/v1/commands", PAUSE, Host=host).status_code == 421
    assert state(run) == before
    run.await_steps(2)


@pytest.mark.parametrize("method", ["save_pretrained", "push_to_hub", "cpu", "__init__", "forward"])
def test_no_method_of_a_module_can_be_called_by_name(
    run: Steered, tmp_path: Path, method: str
) -> None:
    stolen = str(tmp_path / "stolen")
    before = state(run)
    tried: list[dict[str, Any]] = [
        {"kind": "call_action", "name": method, "arguments": {"path": stolen}},
        {"kind": "set_module", "module": "body", "name": method, "value": 1.0},
        {"kind": "set_knob", "name": method, "value": stolen},
        {"kind": method, "path": stolen},
    ]
    operation = {"layer_name": "", "operation_name": method, "params": {"save_directory": stolen}}
    prototype = {"command": "model_layer_operation", "args": json.dumps(operation)}
    for body in [{"interventions": [one], "force": True} for one in tried] + [prototype]:
        assert post(run, "/v1/commands", body).status_code == 422
    assert post(run, "/api/command/", prototype).status_code == 404
    assert not Path(stolen).exists()
    assert state(run) == before
    run.await_steps(2)


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "..", "a/b", "C:\\x", "x" * 5000, "", "a\n"])
def test_a_branch_name_cannot_be_a_path(run: Steered, name: str) -> None:
    before = state(run)
    outside = set(run.folder.parent.iterdir())
    for kind in ("branch", "switch_branch"):
        body = {"interventions": [{"kind": kind, "name": name}], "force": True}
        assert post(run, "/v1/commands", body).status_code == 422
    assert state(run) == before
    run.await_steps(2)
    assert set(run.folder.parent.iterdir()) == outside


def test_the_api_is_not_described_to_strangers_and_an_agent_is_no_person(run: Steered) -> None:
    with run.client(None) as http:
        for path in ("/docs", "/openapi.json", "/v1/openapi.json", "/api/get_model_info/"):
            assert http.get(path).status_code == 401
    with run.client("agent", **{"Idempotency-Key": "a"}) as http:
        assert http.post("/v1/commands", json=PAUSE).status_code == 403
        asked = http.post("/v1/proposals", json=PAUSE).json()
        assert asked["verdict"]["decision"] != "allow"
        decision = {"decision": "approve", "digest": asked["digest"]}
        answer = http.post(f"/v1/proposals/{asked['id']}/decision", json=decision)
        assert answer.status_code == 403
        assert http.post(f"/v1/commands/{asked['id']}/confirm").status_code == 403
        assert http.post("/v1/breaker/reset").status_code == 403
    run.await_steps(2)


# --- a bad command kills the training run -----------------------------------------------------


def update(args: Any, command: str = "update_optimizer") -> dict[str, Any]:
    return {"command": command, "args": args, "time": 0.0, "uuid": "u", "status": "requested"}


def one(**intervention: Any) -> dict[str, Any]:
    return {"interventions": [intervention]}


WEIGHT = '{"layer_name":"body","param_name":"weight","value":0.5}'
BAD: dict[str, list[Any]] = {
    "the README's own form": [update('{"lr":1e-4}'), one(kind="set_lr", lr=1e-4), {"lr": 1e-4}],
    "a value that is no number": [
        update('{"lr":{"value":"abc"}}'),
        one(kind="set_lr", value="abc"),
        one(kind="set_lr", value={"value": 1e-4}),
        one(kind="set_lr", value=None),
    ],
    "arguments that are not JSON": [b"{nope", b"", b"\xff\xfe", b"[" * 100_000, update("{nope")],
    "a parameter set by name": [
        update(WEIGHT, "model_layer_parameter_update"),
        one(kind="set_module", module="body", name="weight", value=0.5),
        one(kind="set_module", module="body.weight", name="p", value=0.5),
    ],
    "a checkpoint without a branch's name": [
        update('{"uuid":"x"}', "load_checkpoint"),
        one(kind="branch", checkpoint="step-10"),
        one(kind="rollback", checkpoint=None),
    ],
    "a checkpoint that nobody knows": [
        update('{"uuid":"x","branch_name":"b"}', "load_checkpoint"),
        one(kind="rollback", checkpoint="7f9c-unknown"),
        one(kind="branch", name="b", checkpoint="7f9c-unknown"),
    ],
    "a learning rate below zero": [one(kind="set_lr", value=-1), one(kind="scale_lr", factor=-1)],
    "a learning rate that is not finite": [
        b'{"interventions": [{"kind": "set_lr", "value": NaN}]}',
        b'{"interventions": [{"kind": "set_lr", "value": 1e999}]}',
        one(kind="set_lr", value="NaN"),
        one(kind="scale_lr", factor="Infinity"),
    ],
    "a learning rate beyond all bounds": [
        one(kind="set_lr", value=1e9),
        one(kind="scale_lr", factor=999),
    ],
    "a command that nobody knows": [one(kind="reset_layer"), update("", "reset_layer"), {}, []],
}


@pytest.mark.parametrize("bodies", BAD.values(), ids=BAD.keys())
def test_a_bad_command_is_refused_and_the_run_goes_on(run: Steered, bodies: list[Any]) -> None:
    before = state(run)
    for body in bodies:
        answer = post(run, "/v1/commands", body)
        assert 400 <= answer.status_code < 500, (body, answer.text)
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["detail"], problem
    assert state(run) == before
    run.await_steps(2)
    assert run.process.poll() is None
    latest = run.said()[-1]
    planned = [lr / (1 + (latest["step"] - 1) / 1000) for lr in (0.02, 0.002)]
    assert latest["used"] == pytest.approx(planned, rel=1e-6)


def test_momentum_on_adamw_is_refused_and_nothing_shows_it(tmp_path: Path) -> None:
    with steered(tmp_path, OPTIMIZER="adamw") as run:
        before = state(run)
        with run.person() as person:
            with pytest.raises(Unsupported, match=r"no setting 'momentum'; this run has .*betas"):
                person.command((SetOptimizer(name="momentum", value=0.9),))
            assert "optimizer.momentum" not in person.info().capabilities.settings
        assert state(run) == before
        run.await_steps(2)


# --- when it applies --------------------------------------------------------------------------


def test_a_change_is_in_force_at_the_very_next_step(run: Steered) -> None:
    run.await_steps(1)
    record = run.command(ScaleLR(factor=0.5))
    answered = time.time()
    assert record.receipt is not None
    boundary = record.receipt.step
    begun = [said["step"] for said in run.said() if said["begun"] <= answered]
    assert boundary <= max(begun)
    old, new = run.used(boundary), run.used(boundary + 1)
    slope = (1 + (boundary - 1) / 1000) / (1 + boundary / 1000)
    assert new == pytest.approx([lr * slope / 2 for lr in old], rel=1e-6)
    run.command(SetLR(value="schedule"))


def test_a_learning_rate_set_under_a_schedule_is_the_learning_rate_and_keeps_the_groups_apart(
    run: Steered,
) -> None:
    record = run.command(SetLR(value=0.013))
    assert record.receipt is not None
    for later in (1, 2, 5):
        first, second = run.used(record.receipt.step + later)
        assert first == pytest.approx(0.013, rel=1e-6)
        assert second == pytest.approx(0.0013, rel=1e-6)
    run.command(SetLR(value="schedule"))


def test_commands_are_carried_out_while_the_run_is_paused(run: Steered) -> None:
    run.command(Pause())
    paused_at = run.said()[-1]["step"]
    changed = run.command(ScaleLR(factor=0.5))
    saved = run.command(SaveCheckpoint(tag="in-pause"))
    with run.person() as person:
        assert person.info().status == "paused"
        held = [checkpoint for checkpoint in person.checkpoints() if checkpoint.tag == "in-pause"]
    assert changed.receipt is not None
    assert saved.receipt is not None
    assert changed.receipt.step == saved.receipt.step == run.said()[-1]["step"] == paused_at
    assert [checkpoint.step for checkpoint in held] == [paused_at]
    assert held[0].path is not None
    assert Path(held[0].path).is_dir()
    run.command(Resume())
    expected = 0.02 / (1 + paused_at / 1000) / 2
    assert run.used(paused_at + 1)[0] == pytest.approx(expected, rel=1e-6)
    run.command(SetLR(value="schedule"))
