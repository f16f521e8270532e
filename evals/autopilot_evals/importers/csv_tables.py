"""Tables of values separated by commas, semicolons or tabs."""

import csv
from collections.abc import Iterator
from pathlib import Path

from autopilot.errors import BadInput
from autopilot_evals.importers.source import Entry, Source, Tally
from autopilot_evals.importers.text import first_line, text_lines
from autopilot_evals.importers.values import is_blank

_LONG = "cells beyond the last column: left out"


def csv_table(path: Path) -> Source:
    """Read a table whose first line names its columns; the separator is found there.

    A blank cell says that the row has no such value. A column named twice is numbered.
    """
    separator = _separator(path)
    return Source("csv", (path,), lambda tally: _entries(path, separator, tally))


def csv_header(path: Path) -> list[str]:
    """The names of a table's columns."""
    reader = csv.reader(text_lines(path), delimiter=_separator(path))
    return _columns(next((cells for cells in reader if cells), []), Tally())


def _separator(path: Path) -> str:
    return max(",;\t", key=first_line(path).count)


def _entries(path: Path, separator: str, tally: Tally) -> Iterator[Entry]:
    reader = csv.reader(text_lines(path), delimiter=separator, strict=False)
    try:
        columns = _columns(next((cells for cells in reader if cells), []), tally)
        for cells in reader:
            if len(cells) > len(columns):
                tally.add(_LONG, f"line {reader.line_num:,}", len(cells) - len(columns))
            fields = dict(zip(columns, cells, strict=False))
            yield Entry({name: cell for name, cell in fields.items() if not is_blank(cell)})
    except csv.Error as error:
        raise BadInput(f"{path}: line {reader.line_num}: not a table ({error})") from error


def _columns(header: list[str], tally: Tally) -> list[str]:
    columns: list[str] = []
    for at, given in enumerate(header, 1):
        name = given.strip() or f"column {at}"
        if name in columns:
            tally.add("columns with the name of an earlier one: numbered", repr(name))
            name = next(f"{name}.{n}" for n in range(2, at + 2) if f"{name}.{n}" not in columns)
        columns.append(name)
    return columns
