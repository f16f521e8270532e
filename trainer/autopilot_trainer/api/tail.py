"""Waiting for journal events: one thread waits, however many clients do."""

import asyncio
import contextlib
import logging
import threading
import time

from autopilot_trainer.api.plane import Plane

_WAIT = 1.0
_log = logging.getLogger(__name__)


class Tail:
    """Tells any number of waiting requests that events were journaled.

    Its thread lives only while somebody waits, and is a daemon: it never keeps the process.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._waiting = 0
        self._seq = 0
        self.closed = False

    async def wait(self, seq: int, seconds: float) -> None:
        """Returns when there may be events after ``seq``, the time is over, or all closes."""
        news = self._news
        if self._seq > seq or self.closed:
            return
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._waiting += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="api-tail", daemon=True)
                self._thread.start()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), seconds)
        finally:
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        """Ends every wait, now and in future. May be called from any thread."""
        self.closed = True
        self._announce(self._seq)

    def _watch(self) -> None:
        seq: int | None = None
        while self._needed():
            try:
                if seq is None:  # whatever came between a client's look and this one is news
                    seq = self._plane.info().seq
                else:
                    events = self._plane.events(seq, wait=_WAIT)
                    if not events:
                        continue
                    seq = events[-1].seq
            except Exception:
                # Those who wait are woken, ask the plane themselves, and answer with its error.
                _log.exception("control API: events cannot be read")
                time.sleep(_WAIT)
            self._announce(self._seq if seq is None else seq)

    def _needed(self) -> bool:
        with self._lock:
            if self._waiting and not self.closed:
                return True
            self._thread = None
            return False

    def _announce(self, seq: int) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, nobody waits
                self._loop.call_soon_threadsafe(self._wake, seq)

    def _wake(self, seq: int) -> None:
        self._seq = max(self._seq, seq)
        self._news.set()
        self._news = asyncio.Event()
