"""JSON lines: one object a line."""

import json
from collections.abc import Iterator
from pathlib import Path

from autopilot_evals.importers.source import Entry, Source, Tally
from autopilot_evals.importers.text import text_lines

_BROKEN = "lines that are not a JSON object: left out"


def json_lines(path: Path) -> Source:
    """Read a file of JSON objects, one a line; objects within become ``outer/inner``.

    NaN and infinities may be bare words or strings. A line cut off by a crash is left out and
    counted.
    """
    return Source("jsonl", (path,), lambda tally: _entries(path, tally))


def _entries(path: Path, tally: Tally) -> Iterator[Entry]:
    for at, line in enumerate(text_lines(path), 1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
            # Most lines hold no object within: looking for a brace is quicker than at each value.
            nested = line.find("{", 1) > 0
            fields = None if not isinstance(record, dict) else flat(record) if nested else record
        except (ValueError, RecursionError):
            fields = None
        if fields is None:
            tally.add(_BROKEN, f"line {at:,}")
        else:
            yield Entry(fields)


def flat(record: dict[str, object]) -> dict[str, object]:
    """Objects within an object as ``outer/inner``.

    >>> flat({"step": 1, "train": {"loss": 0.5}})
    {'step': 1, 'train/loss': 0.5}
    """
    if not any(isinstance(value, dict) for value in record.values()):
        return record
    fields: dict[str, object] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            fields.update({f"{name}/{inner}": v for inner, v in flat(value).items()})
        else:
            fields[name] = value
    return fields
