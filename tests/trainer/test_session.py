"""A session neither changes a training nor stops it."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop, SparseAdam
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from trainer.loops import (
    Orders,
    loss_of,
    make_batches,
    make_model,
    meanwhile,
    running,
    train,
    train_bare,
    until,
)

from autopilot.client import connect
from autopilot.errors import BadInput, NotARun, Unsupported
from autopilot.journal import Journal
from autopilot.policy import Policy, Reflexes
from autopilot.schema import Pause, Resume, Rollback, ScaleLR, SetOptimizer, Stop
from autopilot_trainer import Session

BATCHES = make_batches()


# --- the trajectory -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        lambda p: Adam(p, lr=0.02, amsgrad=True),
        lambda p: AdamW(p, lr=torch.tensor(0.02), fused=True),
        lambda p: RMSprop(p, lr=0.01, foreach=True),
    ],
    ids=["SGD", "Adam", "AdamW", "RMSprop"],
)
def test_a_session_leaves_the_trajectory_as_it_is(make: Any, tmp_path: Path) -> None:
    def fly(*, watched: bool) -> Any:
        model = make_model(dropout=0.3)
        optimizer = make(model.parameters())
        schedule = OneCycleLR(optimizer, 0.05, total_steps=100)
        loader = DataLoader(torch.cat(BATCHES), batch_size=6, shuffle=True)
        if not watched:
            losses = train_bare(model, optimizer, loader, steps=70, scheduler=schedule)
        else:
            with running(tmp_path, model, optimizer, scheduler=schedule) as (session, person):
                losses = train(session, model, optimizer, loader, steps=70, scheduler=schedule)
                assert person.info().faults == ()
                assert len(person.checkpoints()) >= 2, "snapshots were taken"
        return losses, [p.tolist() for p in model.parameters()], torch.rand(1).item()

    assert fly(watched=True) == fly(watched=False)


@pytest.mark.parametrize("trained", [1, 2], ids=["one tensor", "two tensors"])
def test_a_mostly_frozen_model_is_measured_and_left_as_it_is(trained: int, tmp_path: Path) -> None:
    def model() -> nn.Sequential:
        made = make_model()
        for parameter in list(made.parameters())[:-trained]:
            parameter.requires_grad_(False)
        return made

    def weights(of: nn.Module) -> list[Any]:
        return [p.tolist() for p in of.parameters()]

    bare, watched = model(), model()
    train_bare(bare, SGD(bare.parameters(), lr=0.05), BATCHES, steps=20)
    optimizer = SGD(watched.parameters(), lr=0.05)
    with running(tmp_path, watched, optimizer) as (session, person):
        before = weights(watched)
        train(session, watched, optimizer, BATCHES, steps=20)
        until(lambda: person.info().step == 20)
        rows = person.rows()
    assert weights(watched) == weights(bare) != before
    assert all(row.values["update_ratio"] > 0 for row in rows)


class Wrapped(torch.Tensor):
    """A tensor without memory of its own, as quantised and distributed ones are."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Wrapped":
        made: Wrapped = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = [a.inner if isinstance(a, Wrapped) else a for a in args]
        return func(*plain, **(kwargs or {}))


def test_batches_without_memory_of_their_own_do_not_end_the_training(tmp_path: Path) -> None:
    # In a process of its own: reading memory that is not there would end this one.
    script = f"""
        from trainer.loops import *
        from trainer.test_session import Wrapped
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        batches = [Wrapped(batch) for batch in make_batches()]
        with running(Path({str(tmp_path)!r}), model, optimizer) as (session, person):
            for batch in session.batches(batches, steps=9):
                loss = loss_of(model, batch.inner)
                loss.backward(); optimizer.step(); optimizer.zero_grad()
                session.report(loss=loss)
            assert person.info().faults == (), person.info().faults
        print("trained", session.step)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "trained 9\n"), done.stderr


def test_a_loss_scaler_is_left_alone_and_its_skips_are_told(tmp_path: Path) -> None:
    def fly(session: Session | None, model: Any, optimizer: Any, scaler: Any) -> list[float]:
        losses = []
        steps = session.batches(BATCHES, steps=24) if session else (BATCHES * 3)
        for step, batch in enumerate(steps):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            scaler.scale(loss).backward()
            if step == 12:
                model[0].weight.grad.fill_(float("inf"))
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
            if session:
                session.report(loss=loss)
        return losses

    def build() -> Any:
        model = make_model(dropout=0.2)
        optimizer = AdamW(model.parameters(), lr=0.02)
        return model, optimizer, torch.amp.GradScaler("cpu", init_scale=1024.0)

    bare = fly(None, *build())
    model, optimizer, scaler = build()
    with running(tmp_path, model, optimizer, scaler=scaler) as (session, person):
        watched = fly(session, model, optimizer, scaler)
        rows = [row.values for row in person.rows()]
        assert person.info().capabilities.knobs["loss_scale"].value == 512.0
    assert watched == bare
    assert [step for step, row in enumerate(rows) if row["update_skipped"]] == [12]


def test_accumulating_gradients_is_not_leaving_updates_out(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    with running(tmp_path, model, optimizer) as (session, person):
        for step, batch in enumerate(session.batches(BATCHES, steps=60)):
            loss = loss_of(model, batch)
            loss.backward()
            if step % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
            session.report(loss=loss)
        assert {row.values["update_skipped"] for row in person.rows()} == {0.0}
        assert person.episodes() == []


def test_a_change_waits_for_an_update_that_is_long_in_coming(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        order = orders.give(ScaleLR(factor=0.5))
        for step, batch in enumerate(session.batches(BATCHES, steps=210)):
            loss = loss_of(model, batch)
            loss.backward()
            if step % 70 == 69:
                optimizer.step()
                optimizer.zero_grad()
            session.report(loss=loss)
            if step == 5:
                order()
        receipt = orders[0].receipt
    assert receipt is not None
    assert receipt.proven
    assert [read.step for read in receipt.read_back] == [70, 140]


# --- reflexes -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("make", [SGD, AdamW])
def test_an_update_that_is_not_finite_is_left_out(make: Any, bad: float, tmp_path: Path) -> None:
    model = make_model()
    optimizer = make(model.parameters(), lr=0.01)
    with running(tmp_path, model, optimizer) as (session, person):
        for batch in session.batches(BATCHES, steps=10):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            poison = session.step == 5
            if poison:
                model[3].weight.grad[0, 0] = bad
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.step()
            moved = not all(map(torch.equal, before, model.parameters()))
            assert moved != poison
            session.report(loss=loss)
        skipped = [row.step for row in person.rows() if row.values["update_skipped"]]
        reflexes = [event for event in person.events(0) if event.kind == "reflex"]
    assert all(p.isfinite().all() for p in model.parameters())
    assert skipped == [6]
    assert [(e.actor, e.body["step"]) for e in reflexes] == [("reflex:skip_non_finite", 6)]


def fly_with_spikes(folder: Path, policy: Policy) -> list[int]:
    """Gradients a thousand times too large from step 31 to 36; returns the steps left out."""
    model = make_model()
    optimizer = SGD(model.parameters(), lr=1e-6)
    with running(folder, model, optimizer, policy=policy) as (session, person):
        for batch in session.batches(BATCHES, steps=40):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            (loss * (1000 if 30 <= session.step < 36 else 1)).backward()
            optimizer.step()
            session.report(loss=loss)
        return [row.step for row in person.rows() if row.values["update_skipped"]]


def test_spikes_are_left_out_but_only_so_many_in_a_row(tmp_path: Path) -> None:
    policy = Policy(reflexes=Reflexes(max_skips_in_a_row=3))
    assert fly_with_spikes(tmp_path, policy) == [31, 32, 33]


def test_updates_are_measured_closely_from_where_the_gradients_stand_out(tmp_path: Path) -> None:
    model = make_model()
    optimizer = Adam(model.parameters(), lr=1e-6)
    with running(tmp_path, model, optimizer) as (session, person):
        for batch in session.batches(BATCHES, steps=100):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            (loss * (10 if session.step == 83 else 1)).backward()
            optimizer.step()
            session.report(loss=loss)
        rows = [row for row in person.rows() if row.step > 80]
    measured = [row.step for row in rows if "second_moment_staleness" in row.values]
    assert {84, 85, 86} <= set(measured)
    assert measured[0] == 84
    assert 95 not in measured


@pytest.mark.parametrize(
    ("make", "rate"),
    [
        (lambda p: AdamW(p, lr=1e-2, weight_decay=3.0), 0.03),
        (lambda p: AdamW(p, lr=1e-2, weight_decay=0.01), None),  # too slow to be told
        (lambda p: Adam(p, lr=1e-2, weight_decay=3.0), None),  # goes through the moments
        (lambda p: SGD(p, lr=1e-2, weight_decay=3.0), 0.03),
        (lambda p: SGD(p, lr=1e-2, weight_decay=3.0, momentum=0.9), 0.3),
        (lambda p: SGD(p, lr=1e-2), None),
    ],
)
def test_what_weight_decay_takes_of_the_weights_is_measured(
    tmp_path: Path, make: Callable[[Any], Optimizer], rate: float | None
) -> None:
    model = make_model()
    optimizer = make(model.parameters())
    with running(tmp_path, model, optimizer) as (session, person):
        train(session, model, optimizer, BATCHES, steps=3)
        rows = person.rows()
    seen = [row.values.get("weight_decay_rate") for row in rows]
    assert seen == [None] * 3 if rate is None else seen == pytest.approx([rate] * 3)


def test_a_decay_that_an_intervention_put_in_force_is_the_one_measured(tmp_path: Path) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=3.0)
    with running(tmp_path, model, optimizer) as (session, person):
        calmer = Orders(person).give(SetOptimizer(name="weight_decay", value=0.5))
        train(session, model, optimizer, BATCHES, steps=6, at={2: calmer})
        rows = person.rows()
    seen = [row.values["weight_decay_rate"] for row in rows]
    assert seen == pytest.approx([0.03] * 2 + [0.005] * 4)


class Named(NamedTuple):
    targets: torch.Tensor
    source: str


THREE = torch.tensor([0, 1, 1, 2, 2, 2, 2, 1])  # shares 1/8, 3/8, 4/8


@pytest.mark.parametrize(
    ("batch", "entropy"),
    [
        ((torch.zeros(8, 4), THREE), 0.9743),
        ([torch.zeros(8, 4), THREE.int()], 0.9743),
        ({"input_ids": torch.zeros(8), "labels": torch.cat([THREE, THREE * 0 - 100])}, 0.9743),
        (Named(THREE.view(2, 4), "here"), 0.9743),
        ((torch.zeros(8, 4), torch.ones(8)), None),  # a regression
        ((torch.zeros(8, 4), THREE * 0 + 1), None),  # one label tells nothing
        ((torch.zeros(8, 4), THREE * 2**30), None),  # these are no classes
        (THREE, None),  # and these may be inputs
    ],
)
def test_how_well_labels_could_be_guessed_is_told_once(
    tmp_path: Path, batch: Any, entropy: float | None
) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=1e-2)
    with running(tmp_path, model, optimizer) as (session, person):
        for _ in session.batches([batch], steps=60):
            session.report(loss=1.0)
        rows = person.rows()
    told = [(r.step, r.values["label_entropy"]) for r in rows if "label_entropy" in r.values]
    assert told == ([] if entropy is None else [(50, pytest.approx(entropy, abs=1e-4))])


def test_the_policy_switches_reflexes_off(tmp_path: Path) -> None:
    policy = Policy(reflexes=Reflexes(skip_spike_factor=0, skip_non_finite=False))
    assert fly_with_spikes(tmp_path, policy) == []
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path / "b", model, optimizer, policy=policy) as (session, _):
        for batch in session.batches(BATCHES, steps=2):
            (loss_of(model, batch) * float("nan")).backward()
            optimizer.step()
            session.report(loss=1.0)
    assert model[3].weight.isnan().any(), "nobody stood in the way"


# --- what is refused at the start -----------------------------------------------------------


def test_controls_that_cannot_cross_the_wire_are_refused(tmp_path: Path) -> None:
    model = make_model()
    session = Session(model, SGD(model.parameters(), lr=0.1), run_dir=tmp_path)
    with pytest.raises(BadInput, match="needs minimum= and maximum="):
        session.knob("p", lambda: 0.5, print)
    with pytest.raises(BadInput, match="expected bool, int, float or str"):
        session.knob("p", lambda: [1], print)  # type: ignore[arg-type,return-value]
    with pytest.raises(BadInput, match="'x' must be annotated"):
        session.action(lambda x: x)
    with pytest.raises(BadInput, match="evaluate="):
        session.evaluate()


def test_what_cannot_begin_says_why_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    (tmp_path / "file").write_text("")
    (tmp_path / "policy.toml").write_text("autonomi = 'act'")
    taken = tmp_path / "taken"
    taken.mkdir()
    Journal.create(taken / "journal.sqlite", run_id="r", name="n").close()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"run_dir": tmp_path / "file"}, "cannot be written"),
        ({"run_dir": taken}, "holds a run already"),
        ({"run_dir": tmp_path / "a", "policy": tmp_path / "policy.toml"}, "no such key"),
        ({"run_dir": tmp_path / "a", "policy": tmp_path / "none.toml"}, "cannot be read"),
    ]
    for options, words in wrong:
        with pytest.raises(BadInput, match=words) as caught:
            Session(model, optimizer, **options)
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("AUTOPILOT_PORT", "http")
    with pytest.raises(BadInput, match="AUTOPILOT_PORT"):
        Session(model, optimizer, run_dir=tmp_path / "b")


# --- faults of ours -------------------------------------------------------------------------


def test_a_taken_port_leaves_the_training_uncontrolled_but_recorded(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with Session(
            model, optimizer, run_dir=tmp_path / "run", port=other.getsockname()[1]
        ) as session:
            losses = train(session, model, optimizer, BATCHES, steps=5)
            assert session.url is None
            with pytest.raises(NotARun, match="no control API"):
                connect(str(session.run_dir), "operator", "tester")
    assert len(losses) == 5
    journal = Journal.open(tmp_path / "run" / "journal.sqlite")
    faults = [event.body["text"] for event in journal.events(0) if event.kind == "fault"]
    assert len(faults) == 1
    assert "another process listens there" in faults[0]
    assert len(journal.rows("main")) == 5
    journal.close()


def test_gradients_that_cannot_be_measured_are_told_once(tmp_path: Path) -> None:
    embedding = nn.Embedding(10, 4, sparse=True)
    optimizer = SparseAdam(embedding.parameters(), lr=0.1)
    before = embedding.weight.detach().clone()
    with running(tmp_path, embedding, optimizer) as (session, person):
        for batch in session.batches([torch.tensor([1, 2])] * 4, steps=20):
            optimizer.zero_grad()
            loss = embedding(batch).square().sum()
            loss.backward()
            optimizer.step()
            session.report(loss=loss)
        faults = person.info().faults
        assert [row.step for row in person.rows()] == [*range(1, 21)]
    assert len(faults) == 1
    assert "before the update" in faults[0]
    assert not torch.equal(before, embedding.weight)


def test_batches_of_any_kind_pass(tmp_path: Path) -> None:
    strange: list[Any] = [
        torch.eye(3).to_sparse(), {"x": [torch.zeros(0)], "y": None}, "text", 7,
        (torch.tensor(1.5, dtype=torch.bfloat16),), torch.zeros(2, dtype=torch.complex64).conj(),
        torch.zeros(3, dtype=torch.bool), torch.ones(4, 4).t()[::2],
    ]  # fmt: skip
    model = make_model()
    with running(tmp_path, model, SGD(model.parameters(), lr=0.1)) as (session, _):
        for _ in session.batches(strange):
            session.report(loss=1.0)
        assert session.step == len(strange)


def test_a_state_that_cannot_be_taken_is_told_once(tmp_path: Path) -> None:
    class Odd:
        def state_dict(self) -> dict[str, Any]:
            raise RuntimeError("not now")

        def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...

    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer, snapshot_every=1) as (session, person):
        session.track("odd", Odd())
        assert len(train(session, model, optimizer, BATCHES, steps=20)) == 20
        assert len(person.info().faults) == 1
        assert "not now" in person.info().faults[0]


def test_a_wish_that_makes_no_sense_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPILOT_WAIT_FOR_PILOT", "soon")
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer) as (session, person):
        assert len(train(session, model, optimizer, BATCHES, steps=3)) == 3
        assert "AUTOPILOT_WAIT_FOR_PILOT" in person.info().faults[0]


# --- loops with a boundary of their own -----------------------------------------------------


def test_a_loop_of_ones_own_is_paused_resumed_and_stopped(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer) as (session, person):

        def person_at_work() -> None:
            until(lambda: person.info().step >= 3)
            person.command((Pause(),))
            until(lambda: person.info().status == "paused")
            assert "rollback" not in person.info().capabilities.interventions
            with pytest.raises(Unsupported):
                person.command((Rollback(checkpoint="s0"),))
            person.command((ScaleLR(factor=0.5), Resume()))
            until(lambda: person.info().status == "running")
            person.command((Stop(),))

        with meanwhile(person_at_work):
            while not session.stopping:
                optimizer.zero_grad()
                loss = loss_of(model, BATCHES[session.step % 8])
                loss.backward()
                optimizer.step()
                session.report(loss=loss)
        assert session.step >= 3
        saved = list((session.run_dir / "checkpoints").iterdir())
    assert len(saved) == 1


# --- the process ----------------------------------------------------------------------------

SCRIPT = """
import sys, time, torch
from autopilot_trainer import Session
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
batches = [torch.ones(2, 4)] * 4
with Session(model, optimizer, run_dir=sys.argv[1]) as session:
    for batch in session.batches(batches, steps=None if sys.argv[2] == "end" else 10**9):
        loss = model(batch).square().mean()
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        session.report(loss=loss)
        if session.step == 2:
            print("running", flush=True); sys.stdin.readline()
            if sys.argv[2] == "crash":
                raise RuntimeError("the loop failed")
        if sys.argv[2] == "interrupt":
            time.sleep(0.01)
"""


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("crash", 1), ("interrupt", 1)])
def test_the_process_exits_with_clients_connected(how: str, code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    body = json.loads((tmp_path / "run" / "run.json").read_text())
    token = json.loads((tmp_path / "run" / "tokens.json").read_text())["viewer"]
    port = int(body["url"].rsplit(":", 1)[1])
    streams = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    for stream in streams[:2]:
        request = f"GET /v1/events?after=0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        stream.sendall(f"{request}Authorization: Bearer {token}\r\n\r\n".encode())
        assert stream.recv(12) == b"HTTP/1.1 200"
    process.stdin.write("\n")
    process.stdin.flush()
    if how == "interrupt":
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (code, -signal.SIGINT), errors
    for stream in streams:
        stream.close()
    journal = Journal.open(tmp_path / "run" / "journal.sqlite")
    end = next(event for event in reversed(journal.events(0)) if event.kind == "run_ended")
    journal.close()
    assert end.body["status"] == ("ended" if how == "end" else "failed")
    if how == "crash":
        assert end.body["reason"] == "RuntimeError: the loop failed"
        assert "the loop failed" in errors


def test_the_training_process_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    unwanted = "langchain openai pandas rich typer matplotlib fastapi sklearn uvicorn"
    code = f"""
    import sys, autopilot_trainer
    print([name for name in {unwanted!r}.split() if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=dict(os.environ),
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_the_session_takes_its_hooks_along(tmp_path: Path) -> None:
    model = make_model()
    optimizer: Optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer) as (session, _):
        train(session, model, optimizer, BATCHES, steps=2)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
