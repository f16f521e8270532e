"""Weights & Biases: the offline files of a run, and the tables its pages export."""

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from autopilot.errors import BadInput
from autopilot_evals.importers.csv_tables import csv_header, csv_table
from autopilot_evals.importers.json_lines import flat, json_lines
from autopilot_evals.importers.needs import needed
from autopilot_evals.importers.source import Entry, Source, Tally
from autopilot_evals.importers.text import first_line

RUN_FILES = "*.wandb"
_READER = "wandb.sdk.internal.datastore"
_REQUIREMENT = "training-autopilot[wandb]"
_HEADER = b":W&B\xe1\xbe\x00"
_DAMAGED = (AssertionError, IndexError, ValueError, struct.error)
"""What the package raises at a damaged file."""
_ENVELOPE = ("__MIN", "__MAX")


def wandb_history(path: Path) -> Source:
    """Read a run's history.

    Args:
        path: A run directory such as ``offline-run-…`` or its ``.wandb`` file, which the ``wandb``
            package reads; or a history saved as CSV or JSON lines, also from a chart's export,
            whose columns are called ``RUN - METRIC``.

    Raises:
        BadInput: It is none of these, holds several runs, or no fitting ``wandb`` is installed.
    """
    if path.is_dir():
        found = sorted(path.glob(RUN_FILES))
        if len(found) != 1:
            raise BadInput(f"{path}: {len(found)} {RUN_FILES} files; name the directory of one run")
        path = found[0]
    if path.suffix == ".wandb":
        return _offline(path)
    if first_line(path).startswith("{"):
        return replace(json_lines(path), format="wandb")
    return _chart(path)


def _offline(path: Path) -> Source:
    needed(_READER, _REQUIREMENT)
    with path.open("rb") as file:
        if file.read(len(_HEADER)) != _HEADER:
            raise BadInput(f"{path}: not a run file of W&B, or of a version that is not known")
    return Source("wandb", (path,), lambda tally: _records(path, tally))


def _records(path: Path, tally: Tally) -> Iterator[Entry]:
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(path))
    at = 0
    try:
        while (data := store.scan_data()) is not None:
            record, at = Record.FromString(bytes(data)), at + 1
            kind = record.WhichOneof("record_type")
            if kind == "history":
                yield Entry(_history(record.history))
            elif kind == "stats":
                tally.add("samples of the machine's load: left out", f"record {at:,}")
    except (*_DAMAGED, DecodeError):
        tally.add("the rest of the file after a broken record: left out", f"record {at + 1:,}")
    finally:
        store.close()


def _history(history: Any) -> dict[str, object]:
    fields: dict[str, object] = {"_step": history.step.num}
    for item in history.item:
        name = "/".join(item.nested_key) or item.key
        value = json.loads(item.value_json)
        fields |= flat({name: value})
    return fields


def _chart(path: Path) -> Source:
    table = csv_table(path)

    def entries(tally: Tally) -> Iterator[Entry]:
        for entry in table.entries(tally):
            for name in entry.fields:
                if name.endswith(_ENVELOPE):
                    tally.add("values of __MIN and __MAX columns: left out", repr(name))
            yield Entry(
                {
                    name.rpartition(" - ")[2]: value
                    for name, value in entry.fields.items()
                    if not name.endswith(_ENVELOPE)
                }
            )

    header = csv_header(path)
    runs = sorted({name.rpartition(" - ")[0] for name in header if " - " in name})
    if len(runs) > 1:
        raise BadInput(f"{path}: holds several runs ({', '.join(runs[:5])}); export one")
    remarks = (f"columns of the run {runs[0]!r}",) if runs else ()
    return replace(table, format="wandb", entries=entries, remarks=remarks)
