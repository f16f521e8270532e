"""Writing a journal: events at once and durably, rows in batches."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from autopilot.errors import BadInput, JournalError
from autopilot.journal import store, verification
from autopilot.journal.ancestry import Branch
from autopilot.journal.blocks import BLOCK_ROWS, Block
from autopilot.journal.encoding import canonical, encodable, event_hash
from autopilot.journal.pages import PAGE_ROWS, Page, StoredPage, page_of
from autopilot.journal.reader import JournalReader, read
from autopilot.schema import MAIN, SCHEMA_VERSION, Event, EventKind, Row

_SUMMARY = "INSERT INTO summaries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PAGE = "INSERT INTO pages VALUES (?, ?, ?, ?, ?, ?)"


class Journal(JournalReader):
    """The journal of a run, open to be appended to by this process and no other.

    Reads on this object also see rows that were not flushed yet. A write that is itself wrong
    raises :class:`BadInput` and changes nothing. After a :class:`JournalError` from a write nothing
    of that write, and no row unflushed before it, is in the journal; it can be written to again
    once its disk can.
    """

    def __init__(self, db: sqlite3.Connection, path: str, lock: store.WriterLock) -> None:
        super().__init__(db, path)
        self._writer_lock = lock
        self._closed = False
        self._seq = self._row_id = 0
        self._hash = ""
        self._block = Block(1)
        self._page: Page | None = None
        self._page_branch = MAIN
        self._last_row = (0, MAIN, 0.0)
        self._branches: dict[str, Branch] = {}
        self._recover()

    @classmethod
    def create(
        cls, path: str | Path, *, run_id: str, name: str, continues: Self | None = None
    ) -> Self:
        """Begins a journal.

        Args:
            path: A file that does not exist yet, or ``":memory:"``.
            run_id: Identity of the run.
            name: The run's name for people.
            continues: A journal that can no longer be written to: this one goes on with its
                sequence numbers, its chain and its branches. Its events and rows stay there.
        """
        path = str(path)
        lock = (
            store.WriterLock(path) if Path(path).parent.is_dir() else store.WriterLock(":memory:")
        )
        try:
            db = store.create(path)
        except BaseException:
            lock.release()
            raise
        try:
            with store.reported(path, "create"):
                _found(db, run_id, name, continues)
                db.execute("COMMIT")
            return cls(db, path, lock)
        except BaseException:
            db.close()
            lock.release()
            raise

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Goes on with an existing journal, also after a crash of its writer."""
        path = str(path)
        db = store.open_writable(path)
        try:
            lock = store.WriterLock(path)
        except BaseException:
            db.close()
            raise
        try:
            return cls(db, path, lock)
        except BaseException:
            db.close()
            lock.release()
            raise

    @staticmethod
    def read(path: str | Path) -> JournalReader:
        """Opens a journal to read it, also while another process writes it."""
        return read(path)

    def close(self) -> None:
        """Seals and commits what is pending, then lets go of the file."""
        with self._lock:
            if self._closed:
                return
            try:
                with self._writing():
                    self._seal()
            finally:
                self._closed = True
                self._db.close()
                self._writer_lock.release()

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event."""
        return self._seq

    @property
    def last_hash(self) -> str:
        """Hash of the newest event; kept elsewhere, it shows whether the end was cut off."""
        return self._hash

    @property
    def last_row(self) -> tuple[str, int]:
        """Branch and step of the newest row; the first branch and 0 where there is none."""
        step, branch, _ = self._last_row
        return branch, step

    @property
    def row_count(self) -> int:
        return self._row_id

    def branches(self) -> list[Branch]:
        """All branches, in the order they were started."""
        return list(self._branches.values())

    def append(
        self,
        kind: EventKind,
        *,
        step: int,
        branch: str,
        actor: str,
        body: dict[str, Any],
        time: float,
    ) -> Event:
        """Adds an event; it is on disk when this returns."""
        with self._writing():
            return self._add(self._draft(kind, step, branch, actor, body, time))

    def append_rows(self, rows: Sequence[Row]) -> None:
        """Adds rows. They are durable after the next :meth:`flush`, event or full block.

        The step of a row belongs to a branch that was started.
        """
        with self._lock:
            self._check_open()
            pages = [(branch, _checked(part)) for branch, part in self._parts(rows)]
            try:
                for branch, page in pages:
                    self._add_page(branch, page)
            except sqlite3.Error as error:
                raise self._undone(error) from error

    def flush(self) -> None:
        """Commits the rows appended so far."""
        with self._writing():
            pass

    def start_branch(
        self,
        name: str,
        parent: str,
        fork_step: int,
        *,
        time: float,
        actor: str = "system",
        body: dict[str, Any] | None = None,
    ) -> Event:
        """Records that the run goes on as a new branch after a step of another one.

        Args:
            name: A name no branch has yet.
            parent: The branch it leaves.
            fork_step: The last step of the parent's history that also belongs to this branch.
            time: When.
            actor: Who brought it about.
            body: More to say in the event.
        """
        name = encodable(name)
        with self._writing():
            if name in self._branches:
                raise BadInput(f"branch {name!r} exists already")
            if parent not in self._branches:
                raise BadInput(f"branch {name!r} cannot leave {parent!r}: no such branch")
            branch = Branch(len(self._branches) + 1, name, parent, fork_step)
            own = {"name": name, "parent": parent, "fork_step": fork_step}
            draft = self._draft("branch", fork_step, name, actor, {**(body or {}), **own}, time)
            self._db.execute("INSERT INTO branches VALUES (?, ?, ?, ?)", branch)
            self._branches[name] = branch
            return self._add(draft)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it durable on leaving, or none of it there."""
        with self._lock:
            self._check_open()
            try:
                self._begin()
                self._store_page()
                yield
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._undone(error) from error

    def _check_open(self) -> None:
        if self._closed:
            raise JournalError(f"journal {self._path} is closed")

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def _undone(self, error: Exception) -> JournalError:
        lost = self._row_id
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._load()
        except sqlite3.Error:
            return JournalError(f"cannot write journal {self._path}: {error}")
        lost -= self._row_id
        and_rows = f"; {lost} unflushed rows are lost" if lost > 0 else ""
        return JournalError(f"cannot write journal {self._path}: {error}{and_rows}")

    def _draft(
        self, kind: EventKind, step: int, branch: str, actor: str, body: dict[str, Any], time: float
    ) -> tuple[Event, str]:
        try:
            text = canonical(body)
            at = float(time) + 0.0  # SQLite keeps no minus zero, and what is kept is hashed
            fields = (self._seq + 1, at, int(step), encodable(branch), str(kind))
            fields_and_actor = (*fields, encodable(actor))
            digest = event_hash(self._hash, fields_and_actor, text)
        except (TypeError, ValueError) as error:
            raise BadInput(f"cannot journal {kind}: {error}") from error
        return self._event((*fields_and_actor, text, digest)), text

    def _add(self, draft: tuple[Event, str]) -> Event:
        event, body = draft
        line = (event.seq, event.time, event.step, event.branch, event.kind, event.actor)
        self._db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*line, body, event.hash)
        )
        self._seq, self._hash = event.seq, event.hash
        return event

    def _parts(self, rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row]]]:
        """The rows cut where a page has to end: at another branch, at the end of a block."""
        in_block = self._row_id + 1 - self._block.first_row
        for branch, run in groupby(rows, itemgetter(2)):
            part = list(run)
            if branch not in self._branches:
                raise BadInput(f"row of step {part[0].step}: no branch {branch!r} started")
            while part:
                room = min(PAGE_ROWS, BLOCK_ROWS - in_block % BLOCK_ROWS)
                yield branch, part[:room]
                in_block += len(part[:room])
                part = part[room:]

    def _add_page(self, branch: str, page: Page) -> None:
        """Takes in rows that are one page at most, and a block at most with those before."""
        if self._page is not None and (
            branch != self._page_branch or len(self._page) + len(page) > PAGE_ROWS
        ):
            self._begin()
            self._store_page()
        self._row_id += len(page)
        if self._page is None:
            self._page, self._page_branch = page, branch
        else:
            self._page.extend(page)
        if self._row_id + 1 - self._block.first_row >= BLOCK_ROWS:
            with self._writing():
                self._seal()

    def _store_page(self) -> None:
        stored, page = self._unstored(), self._page
        if stored is None or page is None:
            return
        self._db.execute(_PAGE, (*stored[:3], *stored[4:]))
        self._page = None
        self._last_row = (page.steps[-1], stored.branch, page.times[-1])
        self._block.add(stored, page)

    def _unstored(self) -> StoredPage | None:
        if self._page is None:
            return None
        branch = self._branches[self._page_branch]
        return StoredPage.of(self._page, self._block.last_row + 1, branch.id, branch.name)

    def _seal(self) -> None:
        if not len(self._block):
            return
        step, branch, time = self._last_row
        self._add(self._draft("rows_sealed", step, branch, "system", self._block.seal(), time))
        self._db.executemany(_SUMMARY, self._block.summaries())
        self._block = Block(self._row_id + 1)

    def _recover(self) -> None:
        """Takes up where the last writer stopped, sealing what it left unsealed."""
        with self._lock:
            try:
                self._load()
                if len(self._block):
                    with self._writing():
                        self._seal()
            except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
                raise JournalError(f"cannot open journal {self._path}: {error}") from error

    def _load(self) -> None:
        meta = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
        newest = self._db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")
        self._seq, self._hash = newest.fetchone() or (
            int(meta["first_seq"]) - 1,
            verification.genesis(meta),
        )
        self._branches = {branch.name: branch for branch in super().branches()}
        sealed = self._db.execute(
            "SELECT step, branch, time, body FROM events WHERE kind = 'rows_sealed'"
            " ORDER BY seq DESC LIMIT 1"
        ).fetchone() or (0, MAIN, 0.0, '{"last": 0}')
        self._last_row = sealed[:3]
        self._row_id = json.loads(sealed[3])["last"]
        self._block = Block(self._row_id + 1)
        self._page = None
        for line in self._db.execute(
            f"{store.STORED_PAGES} WHERE first_row > ? ORDER BY first_row", (self._row_id,)
        ):
            stored = StoredPage(*line)
            page = stored.page()
            self._row_id = stored.last_row
            self._last_row = (page.steps[-1], stored.branch, page.times[-1])
            self._block.add(stored, page)


def _checked(rows: Sequence[Row]) -> Page:
    try:
        return page_of(rows)
    except (TypeError, ValueError, OverflowError) as error:
        if len(rows) > 1:
            for row in rows:
                _checked([row])
        raise BadInput(f"cannot journal the row of step {rows[0].step}: {error}") from error


def _found(db: sqlite3.Connection, run_id: str, name: str, continues: Journal | None) -> None:
    branches = continues.branches() if continues else []
    meta = {
        "schema_version": str(SCHEMA_VERSION),
        "run_id": encodable(run_id),
        "name": encodable(name),
        "first_seq": str(continues.last_seq + 1 if continues else 1),
        "follows": continues.last_hash if continues and continues.last_seq else "",
        "branches": json.dumps([branch.name for branch in branches] or [MAIN]),
    }
    db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    lines: Sequence[tuple[Any, ...]] = branches or [(1, MAIN, None, None)]
    db.executemany("INSERT INTO branches VALUES (?, ?, ?, ?)", lines)
