"""Starts real trainings and real command lines for the end-to-end tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forked import Forked, run_forked

from autopilot.journal import Journal
from autopilot.schema import Event

AUTOPILOT = (str(Path(sys.executable).with_name("autopilot")),)
SCRIPTS = Path(__file__).parent / "scripts"
SICK = (sys.executable, str(SCRIPTS / "schedule_fault.py"))
PATIENCE = 90.0

SUGGEST = """
autonomy = "suggest"
[[rules]]
name = "back to the plan"
kinds = ["set_lr"]
verdict = "allow"
[reflexes]
hold_on_alarm = "0s"
"""


def environment(**settings: object) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("AUTOPILOT_")}
    return {**inherited, "COLUMNS": "80", **{k: str(v) for k, v in settings.items()}}


def autopilot(*words: object, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run the command line to its end."""
    command = [*AUTOPILOT, *map(str, words)]
    return run_forked(command, timeout=PATIENCE, environment=environment(**settings))


def autopilot_json(*words: object) -> Any:
    """What a command prints with ``--json``, read strictly."""
    done = autopilot(*words, "--json")
    assert done.returncode == 0, done.stderr
    return strict(done.stdout)


def strict(text: str) -> Any:
    """JSON without the NaN that Python would let through."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def start(*command: object, output: Path, **settings: object) -> Forked:
    """Start a Python program, or the command line, that writes to a file."""
    words = list(map(str, command))
    program = words[1:] if words[0] == sys.executable else words
    with output.open("wb") as file:
        return Forked(program, stdout=file, stderr=file, environment=environment(**settings))


def train(run_dir: Path, **settings: object) -> Forked:
    """Start the sick training by itself, and wait until its control API is up."""
    process = start(
        *SICK, output=run_dir.with_suffix(".out"), AUTOPILOT_RUN_DIR=run_dir, **settings
    )
    until(lambda: (run_dir / "run.json").exists() or process.poll() is not None)
    assert process.poll() is None, run_dir.with_suffix(".out").read_text()
    return process


def until(holds: Callable[[], Any]) -> Any:
    """Wait for something to become true; a test that waits in vain fails."""
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def heed_interrupts() -> None:
    """In a process that starts: whoever runs tests in the background has them ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process: Forked) -> int:
    return process.wait(timeout=PATIENCE)


def journal(run_dir: Path) -> Sequence[Event]:
    """What happened; the journal's own sealing of rows left out."""
    with Journal.read(run_dir / "journal.sqlite") as reader:
        return [event for event in reader.events() if event.kind != "rows_sealed"]


def kinds(run_dir: Path) -> list[str]:
    return [event.kind for event in journal(run_dir)]


def losses(run_dir: Path) -> list[float]:
    with Journal.read(run_dir / "journal.sqlite") as reader:
        return [row.values["loss"] for row in reader.all_rows()]
