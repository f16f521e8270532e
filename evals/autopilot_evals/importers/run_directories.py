"""A recording as a run directory, which the commands that read runs can read."""

import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from autopilot.errors import BadInput
from autopilot.journal import Journal
from autopilot.recording import RecordedRun
from autopilot.schema import MAIN, SCHEMA_VERSION, Row

_BATCH: Final = 5_000


def write_run_directory(recorded: RecordedRun, path: str | Path, *, name: str, origin: str) -> int:
    """Journal a recording's rows and branches in the order they were recorded.

    Nothing is left at the path if this fails.

    Args:
        recorded: What to write.
        path: The new run directory; it may exist if it is empty.
        name: The run's name for people.
        origin: Where the recording came from, for the journal's first and last event.

    Returns:
        How many rows were written.

    Raises:
        BadInput: The path is taken or cannot be written, or the recording cannot be read.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise BadInput(f"{path}: exists already; name a new run directory")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
            partial = Path(aside) / path.name
            partial.mkdir()
            count = _journal(recorded, partial / "journal.sqlite", name, origin)
            # No control API, and `connect` says so: a recording is read, never steered.
            run = {"schema_version": SCHEMA_VERSION, "name": name, "run_id": recorded.run_id}
            (partial / "run.json").write_text(json.dumps({**run, "url": None}, indent=2) + "\n")
            partial.rename(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}") from error
    return count


def _journal(recorded: RecordedRun, file: Path, name: str, origin: str) -> int:
    waiting, count, newest = list(recorded.forks), 0, Row(0, {})
    with closing(Journal.create(file, run_id=recorded.run_id, name=name)) as journal:
        for branch, batch in _batches(recorded.rows()):
            if not count:
                _start(journal, recorded, name, origin, batch[0])
            while branch != MAIN and any(fork.name == branch for fork in waiting):
                journal.start_branch(*waiting.pop(0), time=_when(batch[0]))
            journal.append_rows(batch)
            count, newest = count + len(batch), batch[-1]
        for fork in waiting:
            journal.start_branch(*fork, time=_when(newest))
        journal.append(
            "run_ended",
            step=newest.step,
            branch=newest.branch,
            actor="system",
            body={"status": "ended", "reason": f"a recording, imported from {origin}"},
            time=_when(newest),
        )
    return count


def _start(journal: Journal, recorded: RecordedRun, name: str, origin: str, first: Row) -> None:
    body: dict[str, Any] = {
        "name": name,
        "steps": recorded.steps,
        "imported_from": origin,
        "remarks": list(recorded.remarks),
    }
    journal.append(
        "run_started",
        step=first.step,
        branch=MAIN,
        actor="system",
        body=body,
        time=_when(first),
    )


def _batches(rows: Iterator[Row]) -> Iterator[tuple[str, list[Row]]]:
    for branch, of_branch in itertools.groupby(rows, key=lambda row: row.branch):
        while batch := list(itertools.islice(of_branch, _BATCH)):
            yield branch, batch


def _when(row: Row) -> float:
    """When a row was recorded; for files without times, now."""
    return row.time or time.time()
