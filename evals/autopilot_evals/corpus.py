"""A corpus: recorded runs, each with its labels, and the side of the split it stands on.

Either a folder with an ``index.csv`` that labels its recordings (columns ``file``, ``source_repo``,
``kind``, ``events_json``, ``label_confidence``), or recordings with label files beside them.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from autopilot.errors import BadInput
from autopilot.recording import RecordedRun
from autopilot_evals.importers import open_recording
from autopilot_evals.labels import (
    LabelledEvent,
    Labels,
    Split,
    first_complaint,
    labels_path,
    read_labels,
)

_INDEX = "index.csv"
_NEEDED = ("file", "events_json")


@dataclass(frozen=True)
class LabelledRun:
    """One recording of a corpus with what is known of it.

    Attributes:
        name: Unique within the corpus.
        path: Where the recording lies.
        group: What it shares with its like, and what keeps it on one side of the split: the
            repository it comes from and the kind of work.
    """

    name: str
    path: Path
    labels: Labels
    group: str

    @property
    def split(self) -> Split:
        """The side of the split: tuning may look at development runs only."""
        return self.labels.split or split_of(self.group)

    def open(self) -> RecordedRun:
        """Open the recording.

        Raises:
            BadInput: It cannot be read.
        """
        return open_recording(self.path)


def split_of(group: str) -> Split:
    """Half of all groups by the hash of their name, so that it never depends on the others.

    >>> split_of("somebody/something:llm")
    'development'
    """
    first = hashlib.sha256(group.encode()).digest()[0]
    return "development" if first % 2 else "held_out"


def own_corpus() -> Path:
    """The corpus that comes along: each scenario of the sandbox, recorded with nobody aboard."""
    return Path(str(files("autopilot_evals.data"))) / "corpus"


def read_corpus(folder: Path) -> tuple[LabelledRun, ...]:
    """All labelled recordings of a folder, by name.

    Raises:
        BadInput: It is no folder, holds nothing labelled, or a label is not what it should be.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; --corpus names a folder of labelled recordings")
    index = folder / _INDEX
    runs = _from_index(index) if index.exists() else _from_labels(folder)
    if not runs:
        raise BadInput(
            f"{folder}: holds neither {_INDEX} nor a recording with a labels.json beside it"
        )
    return tuple(sorted(runs, key=lambda run: run.name))


def _from_labels(folder: Path) -> list[LabelledRun]:
    runs = []
    for path in sorted((*folder.rglob("labels.json"), *folder.rglob("*.labels.json"))):
        if path.name == "labels.json":
            recording: Path | None = path.parent
        else:
            recording = _beside(path)
        if recording is None:
            raise BadInput(f"{path}: labels no recording; none of that name lies beside it")
        name = str(recording.relative_to(folder)) if recording != folder else folder.name
        group = name.split("/", 1)[0]
        runs.append(LabelledRun(name, recording, read_labels(path), group))
    return runs


def _beside(labels: Path) -> Path | None:
    found = (p for p in sorted(labels.parent.iterdir()) if p.is_file() and p != labels)
    return next((p for p in found if labels_path(p) == labels), None)


def _from_index(index: Path) -> list[LabelledRun]:
    try:
        text = index.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{index}: cannot be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise BadInput(f"{index}: has no column {missing[0]!r}")
    return [_indexed(index, number, line) for number, line in enumerate(reader, start=2)]


def _indexed(index: Path, number: int, line: Mapping[str, str]) -> LabelledRun:
    where = f"{index}, line {number}"
    path = index.parent / line["file"]
    if not line["file"] or not path.is_file():
        raise BadInput(f"{where}: file {line['file']!r} does not lie beside the index")
    try:
        given = json.loads(line["events_json"] or "[]")
        events = tuple(_event(event, line.get("label_confidence") or "high") for event in given)
    except ValidationError as error:
        raise BadInput(f"{where}: events_json: {first_complaint(error)}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"{where}: events_json is not a list of events: {error!r}") from error
    repository = line.get("source_repo") or path.stem
    return LabelledRun(
        name=line["file"],
        path=path,
        labels=Labels(episodes=events, note=line.get("note") or ""),
        group=f"{repository}:{line.get('kind') or ''}",
    )


def _event(given: Mapping[str, object], confidence: str) -> LabelledEvent:
    """An event of the index; its spikes say where they show, or show in the loss."""
    signal = given.get("signal")
    if signal is None and given["kind"] == "spike":
        signal = "loss"
    return LabelledEvent.model_validate(
        {
            "kind": given["kind"],
            "onset": given["start_step"],
            "end": given["end_step"],
            "signal": signal,
            "confidence": confidence,
            "note": given.get("note", ""),
        }
    )
