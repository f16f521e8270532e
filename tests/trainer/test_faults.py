"""Faults of ours, put into every thread and queue of a session: training goes on, and it is loud.

Each row of the matrix breaks one place, for good or every third time, by an exception or by a
delay. The losses must be those of the loop without any session, to the last bit.
"""

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autopilot.client import connect
from autopilot.control import ControlPlane
from autopilot.control.flight import Flight
from autopilot.control.observation import Observation
from autopilot.control.pilots import Pilots
from autopilot.control.published import Published
from autopilot.detectors import DetectorBank
from autopilot.errors import AutopilotError, JournalError
from autopilot.journal import Journal
from autopilot.schema import SetKnob
from autopilot.triage import Triage
from autopilot_trainer import Session
from autopilot_trainer.checkpoints import CheckpointStore
from autopilot_trainer.knobs import Knob
from autopilot_trainer.learning_rate import LearningRate
from autopilot_trainer.reflexes import UpdateReflex
from autopilot_trainer.snapshots import SnapshotRing
from autopilot_trainer.state import Capture
from autopilot_trainer.step_meter import StepMeter
from autopilot_trainer.telemetry import Telemetry
from autopilot_trainer.training import Training

STEPS = 60
TURN = SetKnob(name="k", value=0.5)
Fault = Callable[[Any], Any]


class Broken(Exception):
    """What no code of ours expects."""


def raising(error: Exception) -> Fault:
    def broken(*_: Any, **__: Any) -> Any:
        raise error

    return broken


def now_and_then(error: Exception) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(whole: Callable[..., Any]) -> Callable[..., Any]:
        calls = itertools.count()

        def broken(*given: Any, **named: Any) -> Any:
            if next(calls) % 3 == 2:
                raise error
            return whole(*given, **named)

        return broken

    return wrap


def slow(seconds: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(whole: Callable[..., Any]) -> Callable[..., Any]:
        def late(*given: Any, **named: Any) -> Any:
            time.sleep(seconds)
            return whole(*given, **named)

        return late

    return wrap


def always(error: Exception) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda whole: raising(error)


BROKEN = Broken("a fault of ours")
FULL = JournalError("cannot write journal: disk I/O error")
LATE = (slow(0.05), slow(0.2))
"""Delays, which are no faults that anybody need be told of."""
SIGNS = ("a fault of ours", "disk I/O", "database is locked", "no memory", "No space left")
PLACES: list[tuple[type, str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = [
    (ControlPlane, "tick", always(BROKEN)),
    (ControlPlane, "_drain", now_and_then(BROKEN)),
    (ControlPlane, "take", always(BROKEN)),
    (ControlPlane, "applied", always(BROKEN)),
    (ControlPlane, "proved", always(BROKEN)),
    (ControlPlane, "note", always(BROKEN)),
    (ControlPlane, "info", always(BROKEN)),
    (ControlPlane, "set_status", always(BROKEN)),
    (Observation, "read", always(BROKEN)),
    (DetectorBank, "update", now_and_then(BROKEN)),
    (Triage, "update", always(BROKEN)),
    (Flight, "read", always(BROKEN)),
    (Flight, "take", always(BROKEN)),
    (Pilots, "check", always(BROKEN)),
    (Published, "check", always(BROKEN)),
    (Journal, "append", now_and_then(FULL)),
    (Journal, "append", now_and_then(sqlite3.OperationalError("database is locked"))),
    (Journal, "append_rows", always(FULL)),
    (Journal, "close", always(FULL)),
    (Journal, "append", LATE[0]),
    (Journal, "append_rows", LATE[1]),
    (Training, "capabilities", always(BROKEN)),
    (Training, "checkpoints", always(BROKEN)),
    (Training, "phases", always(BROKEN)),
    (Training, "in_force", always(BROKEN)),
    (Capture, "take", always(BROKEN)),
    (Capture, "size", always(BROKEN)),
    (SnapshotRing, "add", always(BROKEN)),
    (SnapshotRing, "make_room", now_and_then(MemoryError("no memory"))),
    (CheckpointStore, "save", always(OSError(28, "No space left on device"))),
    (Telemetry, "gradients", always(BROKEN)),
    (Telemetry, "grad_norm", now_and_then(BROKEN)),
    (Telemetry, "before_update", always(BROKEN)),
    (Telemetry, "after_update", always(BROKEN)),
    (UpdateReflex, "judge", always(BROKEN)),
    (LearningRate, "enter", always(BROKEN)),
    (LearningRate, "leave", now_and_then(BROKEN)),
    (StepMeter, "into", always(BROKEN)),
    (Knob, "published", always(BROKEN)),
]
"""What is broken, and how."""


def train(folder: Path | None, **options: Any) -> list[float]:
    """Train; None is without a session."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = [torch.randn(6, 4, generator=torch.Generator().manual_seed(s)) for s in range(STEPS)]
    losses = []

    def step(batch: torch.Tensor) -> torch.Tensor:
        loss = (model(batch).squeeze(1) - batch.sum(1)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        return loss

    if folder is None:
        for batch in batches:
            step(batch)
        return losses
    session = Session(model, optimizer, run_dir=folder, checkpoint_every=20, **options)
    with session:
        session.knob("k", lambda: 1.0, lambda value: None, minimum=0.0, maximum=2.0)
        for batch in session.batches(batches, steps=STEPS):
            session.report(loss=step(batch))
            if session.step in (10, 30):
                ask(session)
    return losses


def ask(session: Session) -> None:
    """Somebody looks on, and turns a knob; whether that is answered is another matter."""
    with connect(str(session.run_dir), "operator", "passer-by") as run:
        for ask in (run.info, run.checkpoints, lambda: run.command((TURN,), key=str(session.step))):
            with contextlib.suppress(AutopilotError):
                ask()


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    PLACES,
    ids=[f"{number}-{owner.__name__}.{name}" for number, (owner, name, _) in enumerate(PLACES)],
)
def test_a_fault_of_ours_changes_no_loss_and_is_loud(
    owner: type,
    name: str,
    fault: Callable[[Callable[..., Any]], Callable[..., Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bare = train(None)
    broken = fault(getattr(owner, name))
    monkeypatch.setattr(owner, name, broken)
    assert train(tmp_path / "run") == bare
    if fault not in LATE:
        told = "\n".join(f"{record.getMessage()} {record.exc_info}" for record in caplog.records)
        assert any(sign in told for sign in SIGNS), "nobody was told"
