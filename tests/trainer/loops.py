"""Small real loops under a session, and how to talk to them while they run."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from autopilot.client import HttpRun, connect
from autopilot.schema import ProposalRecord
from autopilot_trainer import Session

Losses = list[tuple[int, float]]
"""Step and loss, in the order in which they were trained."""


def make_model(*, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))


def make_batches(count: int = 8, *, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 4, generator=generator) for _ in range(count)]


def loss_of(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return (model(batch).squeeze(1) - batch.sum(1)).square().mean()


def advance(scheduler: Any) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(1.0)
    elif scheduler is not None:
        scheduler.step()


@contextmanager
def running(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any
) -> Iterator[tuple[Session, HttpRun]]:
    """A session, and a person connected to it."""
    with (
        Session(model, optimizer, run_dir=folder / "run", **options) as session,
        connect(str(session.run_dir), "operator", "tester") as person,
    ):
        yield session, person


def train(
    session: Session,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Iterable[Any],
    *,
    steps: int | None,
    scheduler: Any = None,
    at: Mapping[int, Callable[[], Any]] | None = None,
) -> Losses:
    """The plainest loop; ``at`` maps a number of executed steps to what happens after them."""
    losses: Losses = []
    for batch in session.batches(loader, steps=steps):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        advance(scheduler)
        session.report(loss=loss)
        losses.append((session.step, loss.item()))
        if at and session.executed in at:
            at[session.executed]()
    return losses


def train_bare(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Iterable[Any],
    *,
    steps: int,
    scheduler: Any = None,
) -> Losses:
    """The same loop without a session."""
    losses: Losses = []
    while len(losses) < steps:
        for batch in loader:
            if len(losses) == steps:
                break
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            advance(scheduler)
            losses.append((len(losses) + 1, loss.item()))
    return losses


class Orders:
    """Commands a person gives while the loop runs, and what became of them."""

    def __init__(self, person: HttpRun) -> None:
        self._person = person
        self._ids: list[str] = []

    def give(self, *interventions: Any) -> Callable[[], None]:
        """For ``at``: commands these interventions, past the policy's limits."""

        def order() -> None:
            record = self._person.command(interventions, force=True)
            self._ids.append(record.id)

        return order

    def revert(self, which: int = -1) -> Callable[[], None]:
        """For ``at``: undoes an order given before."""
        return lambda: self._ids.append(self._person.revert(self._ids[which]).id)

    def __getitem__(self, which: int) -> ProposalRecord:
        return self._person.proposal(self._ids[which])


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition; fails loudly instead of for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread while the loop runs; its failure is the test's."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    yield
    thread.join(timeout=60)
    assert not thread.is_alive(), "the other thread did not end"
    if failures:
        raise failures[0]
