"""The SQLite file beneath a journal: its tables, its opening, the lock of its one writer."""

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from autopilot.errors import JournalBusy, JournalError
from autopilot.journal.file_system import NO_LOCKS, has_locks, network_file_system
from autopilot.schema import SCHEMA_VERSION

log = logging.getLogger("autopilot.journal")

MEMORY = ":memory:"

STORED_PAGES = (
    "SELECT first_row, last_row, branch, (SELECT name FROM branches WHERE id = branch),"
    " first_step, last_step, cells FROM pages"
)
"""The lines of the table ``pages`` as the fields of a :class:`StoredPage`."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, time REAL NOT NULL, step INTEGER NOT NULL, branch TEXT NOT NULL,
    kind TEXT NOT NULL, actor TEXT NOT NULL, body TEXT NOT NULL, hash TEXT NOT NULL
);
CREATE INDEX events_by_kind ON events (kind);
CREATE TABLE branches (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, parent TEXT, fork_step INTEGER
);
CREATE TABLE pages (
    first_row INTEGER PRIMARY KEY, last_row INTEGER NOT NULL, branch INTEGER NOT NULL,
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, cells BLOB NOT NULL
);
CREATE INDEX pages_by_step ON pages (branch, last_step, first_step);
CREATE TABLE summaries (
    level INTEGER NOT NULL, branch INTEGER NOT NULL, metric TEXT NOT NULL,
    first_row INTEGER NOT NULL, last_row INTEGER NOT NULL,
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, count INTEGER NOT NULL,
    low_step INTEGER, low REAL, high_step INTEGER, high REAL, bad_step INTEGER, bad TEXT,
    PRIMARY KEY (level, branch, metric, first_row)
) WITHOUT ROWID;
"""


@contextlib.contextmanager
def reported(path: str, doing: str) -> Iterator[None]:
    """Turns what SQLite raises into one clear line."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"cannot {doing} journal {path}: {error}") from error


def create(path: str) -> sqlite3.Connection:
    """A new, empty journal file."""
    if path != MEMORY:
        if Path(path).exists():
            raise JournalError(f"cannot create journal {path}: it exists")
        if not Path(path).parent.is_dir():
            raise JournalError(f"cannot create journal {path}: no such directory")
    with reported(path, "create"):
        db = _connect(path) if path == MEMORY else _connect(_uri(path, mode="rwc"), uri=True)
        try:
            _tune(db, path)
            db.executescript(f"BEGIN IMMEDIATE; {_TABLES}")
        except BaseException:
            db.close()
            raise
    return db


def open_writable(path: str) -> sqlite3.Connection:
    """An existing journal file, to go on with it."""
    _check_path(path)
    with reported(path, "open"):
        db = _connect(_uri(path, mode="rw"), uri=True)
        try:
            _check_tables(db, path)
            _tune(db, path)
        except BaseException:
            db.close()
            raise
    return db


def open_readable(path: str) -> sqlite3.Connection:
    """An existing journal file, to read it, also while another process writes it."""
    _check_path(path)
    uri = _uri(path, mode="ro")
    if not Path(f"{path}-wal").exists() and not os.access(Path(path).parent, os.W_OK):
        uri += "&immutable=1"  # a recording on a read-only disk: there is no place for a WAL index
    with reported(path, "read"):
        db = _connect(uri, uri=True)
        try:
            _check_tables(db, path)
        except BaseException:
            db.close()
            raise
    return db


class WriterLock:
    """Held by the one process that writes a journal; gone with that process, however it ends.

    A POSIX record lock and not ``flock``: forked data workers must not keep it alive. The file
    holds the process's number, for whoever finds it locked.
    """

    def __init__(self, path: str) -> None:
        self._fd: int | None = None
        if path == MEMORY:
            return
        with reported(path, "lock"):
            fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 20).decode(errors="replace").strip()
            os.close(fd)
            if error.errno in NO_LOCKS:
                log.warning(
                    "journal %s: its file system has no locks (%s); a second process on it would "
                    "not be noticed",
                    path,
                    error.strerror,
                )
                return
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise JournalError(f"cannot lock journal {path}: {error.strerror}") from error
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise JournalBusy(f"cannot open journal {path}: {who} writes it") from error
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _uri(path: str, *, mode: str) -> str:
    """Where locks are wanting SQLite is told to do without: there is one writer, and it is known.

    Lock files in their place would outlive a writer that is killed, and shut everybody out.
    """
    without = network_file_system(path) is not None and not has_locks(Path(path).parent)
    return f"file:{quote(path)}?mode={mode}{'&nolock=1' if without else ''}"


def _connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        path, uri=uri, timeout=10.0, isolation_level=None, check_same_thread=False
    )


def _tune(db: sqlite3.Connection, path: str) -> None:
    network = None if path == MEMORY else network_file_system(path)
    if network is not None:
        log.warning(
            "journal %s: on %s there is no write-ahead log; writes cost more", path, network
        )
    mode = "WAL" if network is None else "TRUNCATE"
    db.execute(f"PRAGMA journal_mode={mode}").fetchone()
    db.execute(f"PRAGMA synchronous={'FULL' if network is None else 'EXTRA'}")
    db.execute("PRAGMA journal_size_limit=67108864").fetchone()
    db.execute("PRAGMA cache_size=-8192")


def _check_path(path: str) -> None:
    if Path(path).is_dir():
        raise JournalError(f"cannot open journal {path}: it is a directory")
    if not Path(path).exists():
        raise JournalError(f"cannot open journal {path}: no such file")


def _check_tables(db: sqlite3.Connection, path: str) -> None:
    try:
        found = db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
        version = int(found[0])
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):
            raise
        raise JournalError(f"cannot open journal {path}: it is not a journal") from error
    except sqlite3.DatabaseError as error:
        raise JournalError(f"cannot open journal {path}: {error}") from error
    except (TypeError, ValueError) as error:
        raise JournalError(f"cannot open journal {path}: it is not a journal") from error
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"cannot open journal {path}: it is of version {version}, newer than "
            f"{SCHEMA_VERSION}, the newest that this version of Autopilot reads"
        )
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'pages'").fetchone():
        raise JournalError(
            f"cannot open journal {path}: it keeps its rows in a form from before the first "
            "release, which this version of Autopilot does not read; record the run again"
        )
