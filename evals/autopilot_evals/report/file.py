"""Where a report is written."""

from pathlib import Path

from autopilot.errors import BadInput


def check_report(path: Path) -> None:
    """Look before the work whether a report can be written there afterwards.

    Raises:
        BadInput: It is a folder, or lies in none.
    """
    if path.is_dir():
        raise BadInput(f"--report {path}: is a folder; name a file in it, as report.html")
    if not path.parent.is_dir():
        raise BadInput(f"--report {path}: its folder does not exist; create it first")


def write_report(path: Path, page: str) -> None:
    """Write a report.

    Raises:
        BadInput: It cannot be written there.
    """
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--report {path}: cannot be written: {error.strerror}") from error
