"""Starts a training process and finds its control API."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from autopilot.client import HttpRun, Role, connect
from autopilot.errors import BadInput

_POLL = 0.05


@dataclass
class Launched:
    """A training process that was started here.

    Attributes:
        run_dir: Where it records itself, if it opens a session.
        stale: When an earlier process of the run published itself, in nanoseconds; 0 if none did.
    """

    process: "subprocess.Popen[bytes]"
    run_dir: Path
    stale: int = 0

    def wait_until_up(self, timeout: float) -> bool:
        """Wait for its control API; False where it ends, or opens none, before that."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if _published_at(self.run_dir) > self.stale:
                return True
            if self.process.poll() is not None:
                return _published_at(self.run_dir) > self.stale
            time.sleep(_POLL)
        return False

    def connect(self, role: Role, name: str) -> HttpRun:
        """A client of its control API."""
        return connect(str(self.run_dir), role, name)

    def exit_code(self) -> int:
        """Wait for its end; a signal gives 128 plus its number, as shells say it."""
        code = self.process.wait()
        return 128 - code if code < 0 else code

    def end(self, patience: float = 5.0) -> None:
        """End it: by request, and by force if it does not."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def launch(
    command: Sequence[str],
    *,
    run_dir: Path,
    policy: Path | None = None,
    wait_for_pilot: float = 0.0,
    output: IO[bytes] | int | None = None,
    environment: Mapping[str, str] | None = None,
    resume: bool = False,
) -> Launched:
    """Start a training process that records itself in ``run_dir``, in a session of its own.

    Args:
        command: Program and arguments.
        run_dir: Handed to its session, which makes it.
        policy: Handed to its session.
        wait_for_pilot: Seconds for which its first step waits for a pilot.
        output: Where its standard output and error go; None: where ours go.
        environment: Set besides ours.
        resume: Its session is to go on with the run that the directory holds, if it holds one.

    Raises:
        BadInput: There is no such program, or the directory holds a run that is not to go on.
    """
    if (run_dir / "journal.sqlite").exists() and not resume:
        raise BadInput(
            f"run directory {run_dir}: holds a run already; name another one, or go on with it: "
            "autopilot run --resume"
        )
    settings = {**os.environ, **(environment or {}), "AUTOPILOT_RUN_DIR": str(run_dir)}
    settings["AUTOPILOT_WAIT_FOR_PILOT"] = str(wait_for_pilot)
    if resume:
        settings["AUTOPILOT_RESUME"] = "1"
    if policy is not None:
        settings["AUTOPILOT_POLICY"] = str(policy)
    stale = _published_at(run_dir)
    try:
        process = subprocess.Popen(  # noqa: S603 (what the user asked to run)
            list(command),
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except OSError as error:
        raise BadInput(f"{command[0]}: cannot be started: {error.strerror}") from error
    return Launched(process, run_dir, stale)


def _published_at(run_dir: Path) -> int:
    try:
        return (run_dir / "run.json").stat().st_mtime_ns
    except OSError:
        return 0
