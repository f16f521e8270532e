"""What every request passes before a route sees it: host, origin, token, size, time."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autopilot_trainer.api import problems
from autopilot_trainer.auth import Tokens, caller

BODY_LIMIT = 256 * 1024
BODY_SECONDS = 10.0
SEND_SECONDS = 20.0
"""A client that takes nothing for so long is cut off."""
CALLER = "autopilot.caller"

_OPEN = {"/healthz"}
_HOSTS = {"127.0.0.1", "localhost", "::1"}
_log = logging.getLogger(__name__)


class Gate:
    """ASGI middleware; answers what may not pass, and turns crashes behind it into a 500."""

    def __init__(self, app: ASGIApp, tokens: Tokens, fault: Callable[[str], None]) -> None:
        self._app = app
        self._tokens = tokens
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = False

        async def patient(message: Message) -> None:
            nonlocal started
            started = True
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                raise _CutOff from None

        try:
            headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
            refused = self._refusal(scope, headers)
            if refused is None and scope["method"] not in ("GET", "HEAD"):
                content, refused = await _read(receive, headers)
                receive = _again(content, receive)
            if refused is not None:
                await _answer(patient, *refused)
                return
            await self._app(scope, receive, patient)
        except _CutOff:
            _log.warning("control API: a client stopped reading and is cut off")
        except Exception as error:
            _log.exception("control API: %s %s failed", scope["method"], scope["path"])
            self._fault(f"control API: {scope['path']}: {type(error).__name__}: {error}")
            if started:
                raise
            await _answer(patient, 500, "the control plane could not answer; its log says why")

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not _is_local(host):
            return 421, f"this is not {host[:100] or 'a host that the request names'}"
        origin = headers.get("origin")
        if origin is not None and origin != f"{scope['scheme']}://{host}":
            return 403, "requests from other origins are refused"
        if scope["path"] in _OPEN:
            return None
        kind, _, token = headers.get("authorization", "").partition(" ")
        role = self._tokens.role(token.strip()) if kind.lower() == "bearer" else None
        if role is None:
            return 401, "a bearer token of this run is needed; see tokens.json in its directory"
        scope[CALLER] = caller(role, headers.get("x-autopilot-name"))
        return None


class _CutOff(Exception):
    """Ends a request whose client stopped reading."""


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine's loopback, on any port: tunnels change the port.

    >>> [_is_local(host) for host in ("127.0.0.1:7007", "[::1]:1", "localhost")]
    [True, True, True]
    >>> [_is_local(host) for host in ("evil.example", "localhost.evil.example", "a@localhost", "")]
    [False, False, False, False]
    """
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises where that is not a number
    except ValueError:
        return False
    return parts.hostname in _HOSTS and parts.netloc == host and "@" not in host


async def _read(receive: Receive, headers: dict[str, str]) -> tuple[bytes, tuple[int, str] | None]:
    too_large = (413, f"a request body may have at most {BODY_LIMIT} bytes")
    if headers.get("content-length", "0").isdigit() and (
        int(headers.get("content-length", "0")) > BODY_LIMIT
    ):
        return b"", too_large
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                content += message.get("body", b"")
                if len(content) > BODY_LIMIT:
                    return b"", too_large
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return bytes(content), None
    except TimeoutError:
        return b"", (408, f"the request body did not arrive within {BODY_SECONDS:g} s")


def _again(content: bytes, receive: Receive) -> Receive:
    """A receive that first gives the body that was read already."""
    unread: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay


async def _answer(send: Any, status: int, detail: str) -> None:
    content = problems.body(status, detail)
    headers = [
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", str(len(content)).encode()),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
