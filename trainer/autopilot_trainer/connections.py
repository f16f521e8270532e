"""Connections to the control API: a bounded number, whoever opens them."""

import logging
import resource
from collections.abc import Mapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from autopilot_trainer.api import problems
from autopilot_trainer.api.gate import CALLER

_MOST = 256
_quiet = logging.getLogger("autopilot.trainer.connections")
_quiet.setLevel(logging.ERROR)  # what strangers send must not fill the training's own output


def most_connections() -> int:
    """How many connections there may be: a quarter of the files the process may open, at most.

    The rest belongs to the training and its workers.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else max(16, min(_MOST, files // 4))


class Connection(H11Protocol):
    """One connection. A new one beyond the bound ends the one that was idle for longest.

    Connections over which nothing came with a token go first, so that a stranger who opens
    thousands loses his own.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _quiet
        self._heard = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._heard = self.loop.time()
        living = [c for c in self.connections if not c.transport.is_closing()]
        if len(living) > most_connections():
            idle = [c for c in living if isinstance(c, Connection) and c.idle and c is not self]
            min(idle, key=Connection._worth, default=self).transport.abort()

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)

    @property
    def idle(self) -> bool:
        """No request of it is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP; ends it at once where another answer is under way."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        content = problems.body(400, "this is no HTTP request")
        headers = [
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _worth(self) -> tuple[bool, float]:
        scope: Mapping[str, Any] | None = self.scope
        return scope is not None and CALLER in scope, self._heard
