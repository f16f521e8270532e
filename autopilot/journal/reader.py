"""Reading a journal, live or afterwards."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from autopilot.errors import JournalError
from autopilot.journal import series, store, verification
from autopilot.journal.ancestry import Branch, Segment, overlapping, segments
from autopilot.journal.pages import PAGE_ROWS, Page, StoredPage
from autopilot.journal.store import STORED_PAGES
from autopilot.schema import Event, EventKind, Row

_PAGES_AT_ONCE = 32


class JournalReader:
    """A journal opened to be read, also while another process writes it.

    Its methods may be called from any thread.
    """

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db = db
        self._path = path
        self._lock = threading.RLock()
        with store.reported(path, "read"):
            meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        self.run_id: str = meta["run_id"]
        self.name: str = meta["name"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event."""
        return int(self._query("SELECT coalesce(max(seq), 0) FROM events")[0][0])

    @property
    def last_hash(self) -> str:
        """Hash of the newest event; kept elsewhere, it shows whether the end was cut off."""
        return str(self._query("SELECT hash FROM events ORDER BY seq DESC LIMIT 1")[0][0])

    @property
    def row_count(self) -> int:
        newest = self._query("SELECT last_row FROM pages ORDER BY first_row DESC LIMIT 1")
        return int(newest[0][0]) if newest else 0

    def branches(self) -> list[Branch]:
        """All branches, in the order they were started."""
        return [Branch(*line) for line in self._query("SELECT * FROM branches ORDER BY id")]

    def events(
        self, after: int = 0, kinds: Iterable[EventKind] | None = None, limit: int | None = None
    ) -> list[Event]:
        """Events after that sequence number, in order."""
        wanted = None if kinds is None else tuple(kinds)
        if wanted is not None and not wanted:
            return []
        where = "" if wanted is None else f" AND kind IN ({','.join('?' * len(wanted))})"
        lines = self._query(
            "SELECT seq, time, step, branch, kind, actor, body, hash FROM events"  # noqa: S608
            f" WHERE seq > ?{where} ORDER BY seq LIMIT ?",
            (after, *(wanted or ()), -1 if limit is None else limit),
        )
        return [self._event(line) for line in lines]

    def rows(
        self,
        branch: str,
        *,
        last: int | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
    ) -> list[Row]:
        """Rows of a branch and of its ancestors up to each fork, in order of step.

        Args:
            branch: Whose history.
            last: At most so many of the latest.
            from_step: First step wanted, inclusive.
            to_step: Last step wanted, inclusive.
        """
        found: list[list[Row]] = []
        left = last if last is None or last >= 0 else None
        for segment in reversed(self._segments(branch, from_step, to_step)):
            if left == 0:
                break
            part = self._segment_rows(segment, left)
            found.append(part)
            if left is not None:
                left -= len(part)
        return [row for part in reversed(found) for row in part]

    def all_rows(self, after: int = 0) -> Iterator[Row]:
        """Every row of every branch in the order they were appended, from the one after ``after``.

        Reads some pages at a time: the memory it takes does not grow with the journal.
        """
        while pages := self._pages_after(after):
            for stored in pages:
                yield from self._decoded(stored).rows(stored.branch)[after + 1 - stored.first_row :]
                after = stored.last_row

    def series(self, name: str, branch: str, points: int) -> list[tuple[int, float]]:
        """A metric's curve over a branch's history, in about so many points.

        Each bucket of steps shows its lowest and its highest value and, if it has one, its first
        non-finite value, so that no spike is lost.
        """
        history = self._segments(branch, None, None)
        return series.curve(self._query, self._pages_between, history, name, points)

    def value_at(self, branch: str, metric: str, step: int) -> float | None:
        """What was recorded of a metric at a step of the branch's history, if anything."""
        for segment in reversed(self._segments(branch, step, step)):
            for stored in reversed(self._pages_reaching(segment, None)):
                for found, value in reversed(self._decoded(stored).column(metric)):
                    if found == step:
                        return value
        return None

    def verify(self) -> None:
        """Checks the chain of events and every sealed row.

        Raises:
            JournalError: Names the first sequence number that does not hold.
        """
        with self._lock, store.reported(self._path, "verify"):
            own = not self._db.in_transaction
            if own:
                self._db.execute("BEGIN")  # one snapshot, whatever the writer appends meanwhile
            try:
                verification.check(self._db)
            finally:
                if own:
                    self._db.execute("ROLLBACK")

    def _segments(self, branch: str, from_step: int | None, to_step: int | None) -> list[Segment]:
        known = {found.name: found for found in self.branches()}
        narrowed = (s.narrowed(from_step, to_step) for s in segments(known, branch))
        return [segment for segment in narrowed if not segment.empty]

    def _unstored(self) -> StoredPage | None:
        """The newest rows, where this object holds some that the file does not have yet."""
        return None

    def _segment_rows(self, segment: Segment, last: int | None) -> list[Row]:
        found: list[Row] = []
        for stored in self._pages_reaching(segment, last):
            rows = self._decoded(stored).rows(stored.branch)
            if not stored.inside(segment):
                rows = [row for row in rows if segment.holds(row.step)]
            found += rows
        found.sort(key=itemgetter(0))
        return found if last is None else found[max(len(found) - last, 0) :]

    def _pages_reaching(self, segment: Segment, last: int | None) -> list[StoredPage]:
        """The pages with rows of a segment, in order; at least those with its last by step."""
        reach, values = overlapping(segment)
        with self._lock, store.reported(self._path, "read"):
            found = self._unstored_of(segment)
            for line in self._db.execute(
                f"{STORED_PAGES} WHERE {reach} ORDER BY last_step DESC", values
            ):
                page = StoredPage(*line)
                later = (p for p in found if p.first_step > page.last_step and p.inside(segment))
                if last is not None and sum(p.rows for p in later) >= last:
                    break
                found.append(page)
        return sorted(found)

    def _pages_between(self, segment: Segment, first: int, last: int | None) -> list[Page]:
        reach, values = overlapping(segment)
        until = "" if last is None else " AND first_row <= ?"
        rows = (first,) if last is None else (first, last)
        with self._lock:
            lines = self._query(
                f"{STORED_PAGES} NOT INDEXED WHERE {reach} AND first_row >= ?{until}"
                " ORDER BY first_row",
                (*values, *rows),
            )
            found = [StoredPage(*line) for line in lines]
            if last is None:
                found += self._unstored_of(segment)
        return [self._decoded(stored) for stored in found]

    def _pages_after(self, row: int) -> list[StoredPage]:
        with self._lock:
            lines = self._query(
                f"{STORED_PAGES} WHERE first_row > ? AND last_row > ? ORDER BY first_row LIMIT ?",
                (row - PAGE_ROWS, row, _PAGES_AT_ONCE),
            )
            newest = self._unstored()
        found = [StoredPage(*line) for line in lines]
        if not found and newest is not None and newest.last_row > row:
            found.append(newest)
        return found

    def _unstored_of(self, segment: Segment) -> list[StoredPage]:
        newest = self._unstored()
        return [newest] if newest is not None and newest.branch == segment.branch.name else []

    def _decoded(self, stored: StoredPage) -> Page:
        try:
            return stored.page()
        except (ValueError, TypeError) as error:
            raise JournalError(
                f"journal {self._path}: a row between {stored.first_row} and {stored.last_row} "
                "was altered"
            ) from error

    def _query(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, store.reported(self._path, "read"):
            return self._db.execute(sql, values).fetchall()

    def _event(self, line: tuple[Any, ...]) -> Event:
        seq, time, step, branch, kind, actor, body, digest = line
        try:
            return Event(
                seq=seq, time=time, step=step, branch=branch, kind=kind, actor=actor,
                body=json.loads(body), hash=digest,
            )  # fmt: skip
        except (ValidationError, ValueError) as error:
            raise JournalError(f"journal {self._path}: event {seq} was altered") from error


def read(path: str | Path) -> JournalReader:
    return JournalReader(store.open_readable(str(path)), str(path))
