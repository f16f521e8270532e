"""The ``trainer_state.json`` of a Hugging Face Trainer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autopilot.errors import BadInput
from autopilot_evals.importers.json_lines import flat
from autopilot_evals.importers.source import Entry, Source

STATE_FILE = "trainer_state.json"


def trainer_state(path: Path) -> Source:
    """Read the log history that a Trainer saves with each checkpoint.

    ``train_loss`` of the closing record is the mean over the whole training and keeps its name.

    Args:
        path: The file, or the checkpoint's directory. It is one document, and read at once.

    Raises:
        BadInput: It is not such a file.
    """
    path = path / STATE_FILE if path.is_dir() else path
    document = _document(path)
    steps = document.get("max_steps")
    closing = any("train_runtime" in record for record in document["log_history"])
    return Source(
        "trainer_state",
        (path,),
        lambda tally: _entries(path),
        sets_step=True,
        steps=steps if isinstance(steps, int) and steps > 0 else None,
        own=frozenset({"train_loss"} if closing else ()),
    )


def _entries(path: Path) -> Iterator[Entry]:
    for record in _document(path)["log_history"]:
        fields = flat(record)
        yield Entry({k: v for k, v in fields.items() if k != "step"}, step=fields.get("step"))


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not a JSON document") from error
    history = document.get("log_history") if isinstance(document, dict) else None
    if not isinstance(history, list) or not all(isinstance(record, dict) for record in history):
        raise BadInput(f"{path}: no list of records under 'log_history', as a Trainer writes it")
    return document  # type: ignore[no-any-return]
