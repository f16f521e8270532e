"""A session that trains in a thread of the test's process, with its API on a real socket."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from torch.optim import AdamW
from trainer.loops import Losses, loss_of, make_batches, make_model, until

from autopilot_trainer import Session
from autopilot_trainer.auth import Role, Tokens, read_tokens


class Live:
    """A training under way.

    Attributes:
        losses: Step and loss of every step so far, in the order in which they were trained.
        tokens: Of its control API.
    """

    def __init__(self, session: Session, pace: float) -> None:
        self.session = session
        self.losses: Losses = []
        self.tokens: Tokens = read_tokens(session.run_dir)
        self.url: str = session.url or ""
        self.port = int(self.url.rsplit(":", 1)[1])
        self.failure: BaseException | None = None
        self._pace = pace
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._train, daemon=True)

    def start(self) -> None:
        self._thread.start()
        until(lambda: bool(self.losses) or self.failure is not None)

    def stop(self) -> None:
        """End the training, also one that waits at a boundary."""
        self._enough.set()
        self.session._training.stopping = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "the training does not end"
        assert self.failure is None, repr(self.failure)

    def client(self, role: Role | None, **headers: str) -> httpx2.Client:
        if role is not None:
            headers["Authorization"] = f"Bearer {getattr(self.tokens, role)}"
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False)

    def await_steps(self, count: int) -> None:
        """Wait until so many more steps were trained."""
        enough = len(self.losses) + count
        until(lambda: len(self.losses) >= enough or self.failure is not None)

    def _train(self) -> None:
        model, optimizer = self._model, self._optimizer
        try:
            for batch in self.session.batches(make_batches(), steps=1_000_000):
                optimizer.zero_grad()
                loss = loss_of(model, batch)
                loss.backward()
                optimizer.step()
                self.session.report(loss=loss)
                self.losses.append((self.session.step, loss.item()))
                if self._enough.is_set():
                    return
                time.sleep(self._pace)
        except BaseException as error:
            self.failure = error


@contextmanager
def live(folder: Path, *, pace: float = 0.001, **options: Any) -> Iterator[Live]:
    """A small network that is trained until the test is over."""
    model = make_model(dropout=0.1)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    with Session(model, optimizer, run_dir=folder / "run", **options) as session:
        training = Live(session, pace)
        training._model, training._optimizer = model, optimizer
        training.start()
        try:
            yield training
        finally:
            training.stop()
