"""A recorded run as a table, for other programs and for pandas.

Every row carries ``step``, ``branch``, ``wall_time`` (Unix seconds) and, where they say something,
``source``, and ``parent`` and ``fork_step`` at the row a branch begins with. JSON lines and CSV
read back as the rows they were; in all tables a value that is not there differs from one that is
NaN.
"""

import csv
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import pandas as pd
from pandas.arrays import FloatingArray
from pydantic_core import to_json

from autopilot.errors import BadInput
from autopilot.recording import Fork, RecordedRun
from autopilot.schema import MAIN
from autopilot_evals.importers.needs import needed

RESERVED: Final = ("step", "branch", "parent", "fork_step", "wall_time", "source")
"""Columns that are not metrics; a metric of such a name is called ``metric/NAME``."""

_BATCH: Final = 10_000


def export_run(recorded: RecordedRun, path: str | Path, format: str) -> int:
    """Write a run's rows to a file, or for TensorBoard to a directory.

    Nothing is left at the path if this fails.

    Args:
        recorded: The run.
        path: Where; nothing may be there yet.
        format: One of :data:`EXPORTS`.

    Returns:
        How many rows were written.

    Raises:
        BadInput: The format is unknown, its package is not installed, or the path is taken or
            cannot be written.
    """
    path = Path(path)
    if format not in EXPORTS:
        raise BadInput(f"format: {format!r} is none of {', '.join(EXPORTS)}")
    if path.exists():
        raise BadInput(f"{path}: exists already; name another path, or remove it")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
            partial = Path(aside) / path.name
            count = EXPORTS[format](recorded, partial)
            partial.rename(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}") from error
    return count


def to_frame(recorded: RecordedRun) -> pd.DataFrame:
    """All rows as a data frame, a column for each metric of type ``Float64``: missing is NA.

    It takes 9 bytes a value, whether there is one or not.
    """
    rows = list(recorded.rows())
    frame = pd.DataFrame(
        {
            "step": np.array([row.step for row in rows], dtype=np.int64),
            "branch": [row.branch for row in rows],
            "wall_time": np.array([row.time for row in rows], dtype=np.float64),
            "source": [row.source for row in rows],
        }
    )
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row.values):
        values = np.array([row.values.get(name, 0.0) for row in rows], dtype=np.float64)
        missing = np.array([name not in row.values for row in rows], dtype=np.bool_)
        columns[_column(name)] = FloatingArray(values, missing)
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)


def _column(metric: str) -> str:
    return f"metric/{metric}" if metric in RESERVED else metric


def _records(recorded: RecordedRun) -> Iterator[dict[str, Any]]:
    """The rows with their columns in the order they are written."""
    forks = {fork.name: fork for fork in recorded.forks}
    written = {MAIN}
    for row in recorded.rows():
        record: dict[str, Any] = {"step": row.step, "branch": row.branch, "wall_time": row.time}
        if row.source is not None:
            record["source"] = row.source
        if row.branch not in written:
            record["parent"], record["fork_step"] = _origin(forks[row.branch], forks, written)
            written.add(row.branch)
        record.update((_column(name), float(value)) for name, value in row.values.items())
        yield record


def _origin(fork: Fork, forks: Mapping[str, Fork], written: set[str]) -> tuple[str, int]:
    """Where a branch begins, seen from the nearest ancestor that has rows."""
    parent, step = fork.parent, fork.fork_step
    while parent not in written:
        parent, step = forks[parent].parent, min(step, forks[parent].fork_step)
    return parent, step


def _columns(recorded: RecordedRun) -> list[str]:
    seen = dict.fromkeys(name for record in _records(recorded) for name in record)
    return [name for name in RESERVED if name in seen] + [n for n in seen if n not in RESERVED]


def _jsonl(recorded: RecordedRun, path: Path) -> int:
    count = 0
    with path.open("x", encoding="utf-8") as file:
        for record in _records(recorded):
            file.write(to_json(record, inf_nan_mode="strings").decode() + "\n")
            count += 1
    return count


def _csv(recorded: RecordedRun, path: Path) -> int:
    count = 0
    with path.open("x", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _columns(recorded))
        table.writeheader()
        for record in _records(recorded):
            table.writerow(record)
            count += 1
    return count


def _parquet(recorded: RecordedRun, path: Path) -> int:
    needed("pyarrow.parquet", "training-autopilot[parquet]")
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"step": pa.int64(), "fork_step": pa.int64()}
    types |= dict.fromkeys(("branch", "parent", "source"), pa.string())
    schema = pa.schema([(name, types.get(name, pa.float64())) for name in _columns(recorded)])
    records, count = _records(recorded), 0
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(itertools.islice(records, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _tensorboard(recorded: RecordedRun, path: Path) -> int:
    """The main branch at the top, every other one as a run of its own below; values are exact."""
    needed("tensorboard.summary.writer.event_file_writer", "training-autopilot[tensorboard]")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    scalars = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    writers: dict[str, Any] = {}
    count = 0
    try:
        for row in recorded.rows():
            if row.branch not in writers:
                below = path if row.branch == MAIN else path / quote(row.branch, safe="")
                writers[row.branch] = EventFileWriter(str(below))
            values = [
                Summary.Value(
                    tag=name, tensor=make_tensor_proto(np.float64(value)), metadata=scalars
                )
                for name, value in row.values.items()
            ]
            event = Event(wall_time=row.time, step=row.step, summary=Summary(value=values))
            writers[row.branch].add_event(event)
            count += 1
    finally:
        for writer in writers.values():
            writer.close()
    return count


EXPORTS: Final[Mapping[str, Callable[[RecordedRun, Path], int]]] = {
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _jsonl,
    "tensorboard": _tensorboard,
}
"""What can be written, by the name of the format."""
