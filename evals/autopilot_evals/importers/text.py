"""Text files, read line by line."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from autopilot.errors import BadInput


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their endings; UTF-8, with or without a byte order mark.

    Raises:
        BadInput: The file cannot be read, or is not text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            yield from lines
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a text file in UTF-8") from error


def first_line(path: Path) -> str:
    """The first line that is not blank, without its ending; empty if there is none.

    Raises:
        BadInput: The file cannot be read, or is not text.
    """
    lines = (line.strip() for line in text_lines(path))
    line = next(itertools.dropwhile(lambda line: not line, lines), "")
    if "\0" in line:
        raise BadInput(f"{path}: not a text file")
    return line
