"""A run in an MLflow file store: a file for each metric, a line for each value."""

import heapq
from collections.abc import Iterator
from pathlib import Path

from autopilot.errors import BadInput
from autopilot_evals.importers.source import Entry, Source, Tally
from autopilot_evals.importers.text import text_lines
from autopilot_evals.importers.values import number

META_FILE = "meta.yaml"
_BROKEN = "lines that are not 'timestamp value step': left out"


def mlflow_store(path: Path) -> Source:
    """Read the metrics of a run, all of them side by side by the time they were logged.

    Args:
        path: The run's directory, or one above it with no other run below.

    Raises:
        BadInput: There is no run, there are several, or it has no metrics.
    """
    runs = [meta.parent for meta in sorted(path.rglob(META_FILE)) if _metrics(meta).is_dir()]
    if len(runs) != 1:
        found = f"several runs: {', '.join(map(str, runs[:5]))}" if runs else "no run with metrics"
        raise BadInput(f"{path}: {found}; name the directory of one run of the file store")
    folder = runs[0] / "metrics"
    files = tuple(sorted(file for file in folder.rglob("*") if file.is_file()))
    if not files:
        raise BadInput(f"{folder}: holds no metrics")
    names = [file.relative_to(folder).as_posix() for file in files]

    def entries(tally: Tally) -> Iterator[Entry]:
        streams = [_values(file, name, tally) for file, name in zip(files, names, strict=True)]
        return (entry for _, entry in heapq.merge(*streams, key=lambda found: found[0]))

    return Source("mlflow", files, entries, sets_step=True)


def _metrics(meta: Path) -> Path:
    return meta.parent / "metrics"


def _values(file: Path, name: str, tally: Tally) -> Iterator[tuple[float, Entry]]:
    for at, line in enumerate(text_lines(file), 1):
        parts = line.split()
        written = number(parts[0]) if len(parts) >= 3 else None
        if written is None:
            tally.add(_BROKEN, f"line {at:,} of {name}")
        else:
            yield written, Entry({name: parts[1]}, step=parts[2], time=written)
