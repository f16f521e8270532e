"""The ``metrics.csv`` of Lightning's CSVLogger."""

from dataclasses import replace
from pathlib import Path

from autopilot.errors import BadInput
from autopilot_evals.importers.csv_tables import csv_table
from autopilot_evals.importers.source import Source

METRICS_FILE = "metrics.csv"


def lightning_metrics(path: Path) -> Source:
    """Read what a CSVLogger wrote: training and validation rows of a step are lines of their own.

    Args:
        path: The file, or the ``version_N`` directory that holds it.

    Raises:
        BadInput: There is no such file.
    """
    path = path / METRICS_FILE if path.is_dir() else path
    if not path.is_file():
        raise BadInput(f"{path}: no such file; name the version_N directory of the logger")
    return replace(csv_table(path), format="lightning")
