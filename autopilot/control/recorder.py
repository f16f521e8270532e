"""Writes what happens into the journal, and keeps the run going when the journal cannot."""

import logging
import sqlite3
from collections.abc import Sequence
from threading import Condition
from typing import Any

from autopilot.errors import JournalError
from autopilot.journal import Journal
from autopilot.ports import Clock
from autopilot.schema import Event, EventKind, Row

log = logging.getLogger("autopilot.control")

_FLUSH_EVERY = 1.0


class Recorder:
    """The journal behind the control plane.

    A journal that can no longer be written (disk full, directory gone read-only) never stops a
    run: the recorder says so loudly, once, and goes on in memory, with the sequence unbroken.

    Args:
        changed: Notified after every event, so that clients can wait for the next.
    """

    def __init__(self, journal: Journal, clock: Clock, changed: Condition) -> None:
        self.journal = journal
        self.faults: list[str] = []
        self._clock = clock
        self._changed = changed
        self._flushed_at = clock.now()
        self._lost: Journal | None = None

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event."""
        return self.journal.last_seq

    def write(
        self, kind: EventKind, actor: str, body: dict[str, Any], *, step: int, branch: str
    ) -> None:
        """Append one event, durable when this returns."""
        now = self._clock.now()
        try:
            self.journal.append(kind, step=step, branch=branch, actor=actor, body=body, time=now)
        except (JournalError, sqlite3.Error, OSError) as error:
            self._fall_back(error)
            self.journal.append(kind, step=step, branch=branch, actor=actor, body=body, time=now)
        self._changed.notify_all()

    def rows(self, rows: Sequence[Row]) -> None:
        """Append metric rows; they become durable with the next flush."""
        try:
            self.journal.append_rows(rows)
            now = self._clock.now()
            if now - self._flushed_at >= _FLUSH_EVERY:
                self._flushed_at = now
                self.journal.flush()
        except (JournalError, sqlite3.Error, OSError) as error:
            self._fall_back(error)
            self.journal.append_rows(rows)

    def start_branch(self, name: str, parent: str, fork_step: int, actor: str) -> None:
        """Enter a new branch."""
        try:
            self._start_branch(name, parent, fork_step, actor)
        except (JournalError, sqlite3.Error, OSError) as error:
            self._fall_back(error)
            self._start_branch(name, parent, fork_step, actor)
        self._changed.notify_all()

    def _start_branch(self, name: str, parent: str, fork_step: int, actor: str) -> None:
        self.journal.start_branch(name, parent, fork_step, actor=actor, time=self._clock.now())

    def events(self, after: int, limit: int) -> list[Event]:
        """Events after that sequence number."""
        earlier = self._lost.events(after, limit=limit) if self._lost is not None else []
        return (earlier + self.journal.events(after, limit=limit - len(earlier)))[:limit]

    def close(self) -> None:
        """Flush, seal and close; a journal that cannot be is reported, not raised."""
        try:
            self.journal.close()
        except (JournalError, sqlite3.Error, OSError) as error:
            self.fault(f"journal not closed cleanly: {error}")

    def fault(self, text: str) -> None:
        """Make a fault of ours loud."""
        self.faults.append(text)
        log.error("%s", text)

    def _fall_back(self, error: Exception) -> None:
        self.fault(f"the journal cannot be written ({error}); recording goes on in memory only")
        if self._lost is None:
            self._lost = self.journal
        self.journal = Journal.create(
            ":memory:",
            run_id=self._lost.run_id,
            name=self._lost.name,
            continues=self.journal,
        )
