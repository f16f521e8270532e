"""Opens a recording, whichever program wrote it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from autopilot.errors import BadInput
from autopilot.recording import RecordedRun, is_run, read_run
from autopilot_evals.importers.assembly import assemble
from autopilot_evals.importers.csv_tables import csv_header, csv_table
from autopilot_evals.importers.json_lines import json_lines
from autopilot_evals.importers.lightning_metrics import METRICS_FILE, lightning_metrics
from autopilot_evals.importers.mlflow_store import META_FILE, mlflow_store
from autopilot_evals.importers.source import Source
from autopilot_evals.importers.tensorboard_events import EVENT_FILES, tensorboard_events
from autopilot_evals.importers.text import first_line
from autopilot_evals.importers.trainer_state import STATE_FILE, trainer_state
from autopilot_evals.importers.wandb_history import RUN_FILES, wandb_history

FORMATS: Final[Mapping[str, Callable[[Path], Source]]] = {
    "jsonl": json_lines,
    "csv": csv_table,
    "tensorboard": tensorboard_events,
    "trainer_state": trainer_state,
    "lightning": lightning_metrics,
    "wandb": wandb_history,
    "mlflow": mlflow_store,
}
"""What can be imported, by the name of the format."""


def open_recording(
    path: str | Path,
    *,
    format: str | None = None,
    names: Mapping[str, str] | None = None,
    step: str | None = None,
) -> RecordedRun:
    """Open a run that was recorded by Autopilot or by another program.

    Args:
        path: A file, or the directory that a program keeps its run in.
        format: One of :data:`FORMATS`; None guesses from the path and from what is there. The
            directory of a run of Autopilot needs none.
        names: Known metric, or the column's own name to keep it, by column; before the table of
            names in :mod:`autopilot_evals.importers.names`.
        step: The column that names the step, where the guess by name is wrong.

    Raises:
        BadInput: The path is missing, of no known format, or without steps or numbers; or one of
            the arguments does not fit it.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path}: no such file or directory")
    if format is None and is_run(path):
        if names or step:
            raise BadInput(f"{path}: a run of Autopilot names its metrics and steps itself")
        return read_run(path)
    chosen = format or guess_format(path)
    if chosen not in FORMATS:
        raise BadInput(f"format: {chosen!r} is none of {', '.join(FORMATS)}")
    place = path.resolve()
    name = place.name if place.is_dir() else place.stem
    return assemble(FORMATS[chosen](path), name, names=names, step=step)


def guess_format(path: Path) -> str:
    """The format of a recording, from its name and its beginning.

    Raises:
        BadInput: It is none that is known.
    """
    found = _of_directory(path) if path.is_dir() else _of_file(path)
    if found is None:
        what = "holds no recording" if path.is_dir() else "is no recording"
        raise BadInput(f"{path}: {what} of a known format; name it: {', '.join(FORMATS)}")
    return found


def _of_directory(path: Path) -> str | None:
    marks = {
        STATE_FILE: "trainer_state",
        METRICS_FILE: "lightning",
        RUN_FILES: "wandb",
        META_FILE: "mlflow",
        f"*/{META_FILE}": "mlflow",
        f"**/{EVENT_FILES}": "tensorboard",
    }
    return next((name for mark, name in marks.items() if next(path.glob(mark), None)), None)


def _of_file(path: Path) -> str | None:
    if "tfevents" in path.name:
        return "tensorboard"
    if path.suffix == ".wandb":
        return "wandb"
    line = first_line(path)
    if not line:
        raise BadInput(f"{path}: is empty")
    if line.startswith("{"):
        whole = path.suffix == ".json" and not line.endswith("}")
        return "trainer_state" if whole or path.name == STATE_FILE else "jsonl"
    if any(mark in line for mark in ",;\t"):
        return "wandb" if any(" - " in name for name in csv_header(path)) else "csv"
    return None
