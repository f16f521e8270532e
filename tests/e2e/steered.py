"""A training in a process of its own, steered over its socket as a stranger or a person would."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from e2e.flying import SCRIPTS, environment, until
from forked import Forked

from autopilot.client import HttpRun, connect
from autopilot.schema import Intervention, ProposalRecord
from autopilot_trainer.auth import Role, Tokens, read_tokens

SETTLED = {"applied", "kept", "rejected", "reverted"}


class Steered:
    """A training under way.

    Attributes:
        folder: Its run directory.
    """

    def __init__(self, folder: Path, steps: int, pause: float, **settings: object) -> None:
        self.folder = folder
        self._output = folder.with_suffix(".out")
        self._errors = folder.with_suffix(".err")
        self._command = [str(SCRIPTS / "steered.py"), str(steps), str(pause)]
        self._settings = settings
        self.process = self._start()

    def _start(self, **settings: object) -> Forked:
        chosen = environment(AUTOPILOT_RUN_DIR=self.folder, **self._settings, **settings)
        with self._output.open("ab") as output, self._errors.open("ab") as errors:
            return Forked(self._command, stdout=output, stderr=errors, environment=chosen)

    def go_on(self) -> None:
        """Start another process that resumes the run; the one before it is gone."""
        self.process = self._start(AUTOPILOT_RESUME=1)

    def await_steps(self, more: int = 1) -> None:
        """Wait until so many more steps were trained."""
        enough = len(self.said()) + more
        until(lambda: len(self.said()) >= enough or self.process.poll() is not None)
        assert len(self.said()) >= enough, self.errors()

    def said(self) -> list[dict[str, Any]]:
        """What it said of every step so far."""
        if not self._output.exists():
            return []
        whole = self._output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def used(self, step: int) -> list[float]:
        """The learning rate that each group's weights were really moved by in a step."""
        until(lambda: self.said()[-1]["step"] >= step)
        (found,) = [said["used"] for said in self.said() if said["step"] == step]
        return list(found)

    def errors(self) -> str:
        return self._errors.read_text()

    @property
    def tokens(self) -> Tokens:
        return read_tokens(self.folder)

    @property
    def url(self) -> str:
        return str(json.loads((self.folder / "run.json").read_text())["url"])

    def client(self, role: Role | None, **headers: str) -> httpx2.Client:
        if role is not None:
            headers["Authorization"] = f"Bearer {getattr(self.tokens, role)}"
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def person(self) -> HttpRun:
        return connect(str(self.folder), "operator", "kim")

    def command(self, *interventions: Intervention) -> ProposalRecord:
        """Give a command, and wait for what became of it."""
        with self.person() as person:
            filed = person.command(interventions)

            def settled() -> ProposalRecord | None:
                record = person.proposal(filed.id)
                return record if record.status in SETTLED else None

            found: ProposalRecord = until(settled)
            return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def steered(
    folder: Path, *, steps: int = 100_000, pause: float = 0.02, **settings: object
) -> Iterator[Steered]:
    """A training that is killed when the test is over, if it still lives."""
    training = Steered(folder / "run", steps, pause, **settings)
    try:
        training.await_steps()
        yield training
    finally:
        training.kill()
