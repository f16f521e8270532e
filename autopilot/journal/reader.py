"""Reading a journal, live or afterwards."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from autopilot.errors import JournalError
from autopilot.journal import series, store, verification
from autopilot.journal.ancestry import Branch, Segment, segment_filter, segments
from autopilot.journal.encoding import decode_values
from autopilot.schema import Event, EventKind, Row

_PAGE = 5_000
_ROW = "SELECT r.id, r.step, r.vals, b.name, r.time, r.source FROM rows r JOIN branches b"


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
        return int(self._query("SELECT count(*) FROM rows")[0][0])

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
        left = -1 if last is None else last
        for segment in reversed(self._segments(branch, from_step, to_step)):
            if left == 0:
                break
            where, values = segment_filter(segment)
            lines = self._query(
                f"{_ROW} ON b.id = r.branch WHERE {where} ORDER BY r.step DESC, r.id DESC LIMIT ?",
                (*values, left),
            )
            found.append([_row(line) for line in reversed(lines)])
            if left > 0:
                left -= len(lines)
        return [row for part in reversed(found) for row in part]

    def all_rows(self, after: int = 0) -> Iterator[Row]:
        """Every row of every branch in the order they were appended, from the one after ``after``.

        Reads in pages: the memory it takes does not grow with the journal.
        """
        while lines := self._query(
            f"{_ROW} ON b.id = r.branch WHERE r.id > ? ORDER BY r.id LIMIT ?", (after, _PAGE)
        ):
            after = lines[-1][0]
            yield from (_row(line) for line in lines)

    def series(self, name: str, branch: str, points: int) -> list[tuple[int, float]]:
        """A metric's curve over a branch's history, in about so many points.

        Each bucket of steps shows its lowest and its highest value and, if it has one, its first
        non-finite value, so that no spike is lost.
        """
        return series.curve(self._query, self._segments(branch, None, None), name, points)

    def value_at(self, branch: str, metric: str, step: int) -> float | None:
        """What was recorded of a metric at a step of the branch's history, if anything."""
        for segment in reversed(self._segments(branch, step, step)):
            where, values = segment_filter(segment)
            lines = self._query(
                f"SELECT r.vals FROM rows r WHERE {where} ORDER BY r.id DESC",  # noqa: S608
                values,
            )
            for (text,) in lines:
                recorded = decode_values(text)
                if metric in recorded:
                    return recorded[metric]
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


def _row(line: tuple[Any, ...]) -> Row:
    _, step, text, branch, time, source = line
    return Row(step, decode_values(text), branch, time, source)
