"""TensorBoard event files, through the ``tensorboard`` package."""

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.errors import BadInput
from autopilot_evals.importers.needs import needed
from autopilot_evals.importers.source import Entry, Source, Tally

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

EVENT_FILES = "*tfevents*"
_REQUIREMENT = "training-autopilot[tensorboard]"
_FRAMING = 16
"""Bytes around a record: its length and two checksums."""


def tensorboard_events(path: Path) -> Source:
    """Read the scalars of a log directory, or of one event file.

    Files of one directory follow one another, as a resumed run writes them; directories beside
    each other are read side by side by wall time, and their scalars carry the directory's name.
    Nothing is sampled away.

    Raises:
        BadInput: There is no event file, or the ``tensorboard`` package is not installed.
    """
    needed("tensorboard.backend.event_processing.event_file_loader", _REQUIREMENT)
    found = sorted(path.rglob(EVENT_FILES)) if path.is_dir() else [path]
    if not found:
        raise BadInput(f"{path}: holds no TensorBoard event files ({EVENT_FILES})")
    folders: dict[Path, list[Path]] = {}
    for file in found:
        folders.setdefault(file.parent, []).append(file)
    if len(folders) == 1:
        prefixes = dict.fromkeys(folders, "")
        remarks: tuple[str, ...] = ()
    else:
        prefixes = {folder: _prefix(folder.relative_to(path)) for folder in folders}
        remarks = (f"read side by side: {len(folders)} directories of {path.name}",)

    def entries(tally: Tally) -> Iterator[Entry]:
        streams = [_stream(files, prefixes[folder], tally) for folder, files in folders.items()]
        return heapq.merge(*streams, key=_written)

    return Source("tensorboard", tuple(found), entries, sets_step=True, remarks=remarks)


def _prefix(folder: Path) -> str:
    return "" if folder == Path() else f"{folder.as_posix()}/"


def _written(entry: Entry) -> float:
    assert isinstance(entry.time, float)
    return entry.time


def _stream(files: list[Path], prefix: str, tally: Tally) -> Iterator[Entry]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    plugins: dict[str, str] = {}
    for file in files:
        read = 0
        for record in RawEventFileLoader(str(file)).Load():
            read += len(record) + _FRAMING
            event = Event.FromString(record)
            fields = {}
            for value in event.summary.value:
                scalar = _scalar(value, plugins)
                if scalar is None:
                    kind = plugins.get(value.tag) or "other"
                    tally.add(f"{prefix}{value.tag}: {kind}, not a scalar, left out", file.name)
                else:
                    fields[prefix + value.tag] = scalar
            if fields:
                yield Entry(fields, event.step, event.wall_time)
        if read < (size := file.stat().st_size):
            tally.add("bytes after the last whole record: left out", file.name, size - read)


def _scalar(value: "Summary.Value", plugins: dict[str, str]) -> Any:
    from tensorboard.util.tensor_util import make_ndarray

    if value.metadata.plugin_data.plugin_name:
        plugins[value.tag] = value.metadata.plugin_data.plugin_name
    if value.HasField("simple_value"):
        return value.simple_value
    if value.HasField("tensor") and plugins.get(value.tag) == "scalars":
        return float(make_ndarray(value.tensor).item())
    return None
