"""The run directory: where a run keeps its identity, tokens, journal and checkpoints."""

import json
import os
import platform
import re
import sys
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from autopilot import __version__
from autopilot.errors import BadInput
from autopilot.journal import Journal
from autopilot.schema import SCHEMA_VERSION

RUN_FILE = "run.json"
JOURNAL_FILE = "journal.sqlite"


@dataclass(frozen=True)
class RunDirectory:
    """One run's folder."""

    path: Path
    name: str
    run_id: str

    @property
    def journal(self) -> Path:
        return self.path / JOURNAL_FILE

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def publish(self, url: str | None) -> None:
        """Write ``run.json``: how others find the run."""
        body = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "run_id": self.run_id,
            "url": url,
            "pid": os.getpid(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": {
                "autopilot": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
        }
        aside = self.path / f".{RUN_FILE}.partial"
        aside.write_text(json.dumps(body, indent=2) + "\n")
        aside.replace(self.path / RUN_FILE)


def make_run_directory(
    path: str | Path | None, name: str | None, *, resume: bool = False
) -> RunDirectory:
    """Make the folder of a new run, or take that of a run that goes on.

    Args:
        path: Where; None takes ``AUTOPILOT_RUN_DIR``, or else a new folder below ``runs/``.
        name: The run's name for people; None takes the folder's.
        resume: Go on with the run that it holds, if it holds one.

    Raises:
        BadInput: It cannot be made or written, holds a run that is not to be gone on with, or no
            folder is named that could hold the run to go on with.
    """
    chosen = path or os.environ.get("AUTOPILOT_RUN_DIR")
    if resume and not chosen:
        raise BadInput("resume: name the run's directory, run_dir= or AUTOPILOT_RUN_DIR")
    script = re.sub(r"[^A-Za-z0-9_.-]", "-", Path(sys.argv[0] or "run").stem) or "run"
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = Path(chosen) if chosen else Path("runs") / f"{name or script}-{stamp}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInput(f"run directory {folder}: cannot be written: {error.strerror}") from error
    if (folder / JOURNAL_FILE).exists():
        if not resume:
            raise BadInput(
                f"run directory {folder}: holds a run already; name another one, or go on with "
                "it: Session(resume=True), autopilot run --resume"
            )
        with Journal.read(folder / JOURNAL_FILE) as journal:
            return RunDirectory(folder, journal.name, journal.run_id)
    return RunDirectory(folder, name or folder.name, uuid.uuid4().hex)
