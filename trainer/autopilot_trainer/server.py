"""Serves the control API from a thread of the training process."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import threading
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from autopilot.errors import BadInput
from autopilot_trainer.connections import Connection
from autopilot_trainer.listening import Listening

_SWEEP = 5.0
_FAREWELL = 0.2
_HANDSHAKE = 5.0
_BACKLOG = 128
"""Connections that wait to be taken; so many at most are taken at once."""
_log = logging.getLogger(__name__)


class ControlServer:
    """The API behind a socket, in a daemon thread.

    Binding happens on construction, so that a port that is taken is an error of the caller's and
    not of a thread.

    Args:
        app: From :func:`autopilot_trainer.api.build_app`.
        listening: Host, port and certificate; by default any free port on loopback.
        uds: Path of a Unix socket to serve on instead.

    Raises:
        BadInput: It cannot listen there.
    """

    def __init__(
        self, app: FastAPI, listening: Listening | None = None, uds: str | None = None
    ) -> None:
        listening = listening or Listening()
        context = None if uds else listening.context()
        self._app = app
        self._uds = uds
        self._socket = _bind_unix(uds) if uds else _bind(listening.host, listening.port)
        if uds:
            self.url = f"http+unix://{uds}"
        else:
            shown = f"[{listening.host}]" if ":" in listening.host else listening.host
            scheme = "http" if context is None else "https"
            self.url = f"{scheme}://{shown}:{self._socket.getsockname()[1]}"
        # A forked data worker must not hold the port after this process is gone.
        os.register_at_fork(after_in_child=self._socket.close)
        self._server = _Server(_config(app), context)
        self._thread = threading.Thread(target=self._serve, name="control-api", daemon=True)

    def start(self) -> str:
        """Serves from now on; the answer is the URL."""
        self._thread.start()
        return self.url

    def stop(self, timeout: float = 2.0) -> None:
        """Ends every stream and connection, whoever is connected, and waits that long at most."""
        self._app.state.tail.close()
        self._server.end()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._socket.close()
        if self._uds:
            with contextlib.suppress(OSError):
                os.unlink(self._uds)

    def _serve(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except Exception as error:
            _log.exception("control API stopped")
            self._app.state.fault(f"control API stopped: {error}")


class _Server(uvicorn.Server):
    """Sleeps until it is told to end, instead of looking ten times a second."""

    def __init__(self, config: uvicorn.Config, context: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._context = context
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._silent: dict[Any, Any] = {}
        self.servers: list[asyncio.Server] = []

    def end(self) -> None:
        """May be called from any thread, before or after the server runs."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ending.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        make = partial(Connection, config=self.config, server_state=self.server_state, app_state={})
        patience = None if self._context is None else _HANDSHAKE
        for listener in sockets or ():
            server = await loop.create_server(
                make,
                sock=listener,
                backlog=_BACKLOG,
                ssl=self._context,
                ssl_handshake_timeout=patience,
            )
            self.servers.append(server)
        self.started = True

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not self.should_exit:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _SWEEP)
            self._cut_silent()

    def _cut_silent(self) -> None:
        """Drops connections that between two sweeps neither sent a request nor took an answer."""
        silent = {}
        for connection in list(self.server_state.connections):
            cycle, closing = getattr(connection, "cycle", None), connection.transport.is_closing()
            if closing or cycle is None or cycle.response_complete:
                silent[connection] = (cycle, closing)
        for connection, state in silent.items():
            if self._silent.get(connection) == state:
                connection.transport.abort()
        self._silent = silent

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams end by themselves once the tail is closed; who does not take their end is cut off,
        # which also wakes what waits to send to them.
        if self.server_state.connections:
            await asyncio.sleep(_FAREWELL)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=16 * 1024,
    )


def _bind(host: str, port: int) -> socket.socket:
    host = "127.0.0.1" if host == "localhost" else host
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, OverflowError, UnicodeError) as error:
        raise BadInput(f"the control API cannot listen on {host}:{port}: {error}") from error
    # With the protocol named, asyncio switches off Nagle: answers leave 40 ms sooner.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        why = "another process listens there" if taken else error
        raise BadInput(f"the control API cannot listen on {host}:{port}: {why}") from error
    listener.setblocking(False)
    return listener


def _bind_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket() and not _answers(path):
            os.unlink(path)
        previous = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(previous)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BadInput(f"the control API cannot listen on {path}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) == 0
