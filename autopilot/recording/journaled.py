"""A live run's own directory, read as a recording."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from autopilot.errors import JournalError, NotARun
from autopilot.journal import Journal
from autopilot.recording.recorded import Fork, RecordedRun
from autopilot.schema import Row

JOURNAL_FILE = "journal.sqlite"
_SQLITE = b"SQLite format 3\x00"


def is_run(path: Path) -> bool:
    """Whether this is a run directory, or a journal file."""
    if path.is_dir():
        return (path / JOURNAL_FILE).exists()
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def read_run(path: str | Path) -> RecordedRun:
    """A live run's directory, or its journal file, as a recording. Nothing is written.

    A run that is still under way is read as far as it has come.

    Raises:
        NotARun: It is no run directory and no file.
        JournalError: The journal cannot be read, or is of a newer version.
    """
    place = Path(path)
    if not place.exists():
        raise NotARun(f"{path}: no such run directory or journal file")
    journal = place / JOURNAL_FILE if place.is_dir() else place
    if not journal.exists():
        raise NotARun(f"{path}: holds no {JOURNAL_FILE}; name the directory of a run")
    with Journal.read(journal) as reader:
        # Rows first: the branches and events read after them cover them all, also in a live run.
        count = reader.row_count
        branches, events = reader.branches(), reader.events()
        name, run_id = reader.name, reader.run_id
    remarks = []
    if not any(event.kind == "run_ended" for event in events):
        remarks.append("the run had not ended, or not cleanly, when it was read")
    return RecordedRun(
        name=name,
        run_id=run_id,
        rows=lambda: _rows(journal, count),
        forks=tuple(
            Fork(branch.name, branch.parent, branch.fork_step or 0)
            for branch in branches
            if branch.parent is not None
        ),
        events=tuple(events),
        remarks=tuple(remarks),
    )


def _rows(journal: Path, count: int) -> Iterator[Row]:
    with Journal.read(journal) as reader:
        try:
            yield from islice(reader.all_rows(), count)
        except (ValueError, TypeError) as error:
            raise JournalError(f"journal {journal}: a row was altered: {error}") from error
