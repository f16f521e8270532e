"""What every request passes before a route sees it: host, origin, rate, token, size, time."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autopilot_trainer.api import problems
from autopilot_trainer.api.rates import WAITING, Rates
from autopilot_trainer.auth import Caller, Role, Tokens, caller

BODY_LIMIT = 256 * 1024
BODY_SECONDS = 10.0
SEND_SECONDS = 20.0
"""A client that takes nothing for so long is cut off."""
CALLER = "autopilot.caller"

_OPEN = {"/healthz"}
_LONG = {"/v1/events", "/v1/journal"}
_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_SLOWER = "requests come faster than this run takes them; slow down"
_log = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """What a request is answered that does not pass."""

    status: int
    detail: str
    retry_after: int = 0


_MISPLACED = Refusal(
    422, "a token of this run belongs into the Authorization header; elsewhere it would be recorded"
)


def _full(role: Role) -> Refusal:
    return Refusal(429, f"{WAITING} clients with the {role}'s token wait for events already", 5)


class Gate:
    """ASGI middleware; answers what may not pass, and turns crashes behind it into a 500.

    Args:
        app: What lies behind it.
        tokens: One for each role.
        fault: Takes note of what crashed.
        host: Another name than loopback's that clients reach the run by.
    """

    def __init__(
        self, app: ASGIApp, tokens: Tokens, fault: Callable[[str], None], host: str | None = None
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._fault = fault
        self._hosts = _HOSTS | ({host.lower()} if host else set())
        self._rates = Rates(time.monotonic)

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
            await self._admit(scope, receive, patient)
        except _CutOff:
            _log.warning("control API: a client stopped reading and is cut off")
        except Exception as error:
            _log.exception("control API: %s %s failed", scope["method"], scope["path"])
            self._fault(f"control API: {scope['path']}: {type(error).__name__}: {error}")
            if started:
                raise
            refusal = Refusal(500, "the control plane could not answer; its log says why")
            await _answer(patient, refusal)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        refused = self._refusal(scope, headers)
        found: Caller | None = scope.get(CALLER)
        if refused is None and found and scope["method"] not in ("GET", "HEAD"):
            content, refused = await _read(receive, headers)
            refused = refused or self._refuse_change(found, content)
            receive = _again(content, receive)
        if refused is not None:
            await _answer(send, refused)
        elif found and scope["path"] in _LONG:
            with self._rates.seat(found.role) as free:
                if free:
                    await self._app(scope, receive, send)
                else:
                    await _answer(send, _full(found.role))
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        host = headers.get("host", "")
        if not _names(host, self._hosts):
            return Refusal(421, f"this is not {host[:100] or 'a host that the request names'}")
        origin = headers.get("origin")
        if origin is not None and origin != f"{scope['scheme']}://{host}":
            return Refusal(403, "requests from other origins are refused")
        if scope["path"] in _OPEN:
            return None
        kind, _, token = headers.get("authorization", "").partition(" ")
        role = self._tokens.role(token.strip()) if kind.lower() == "bearer" else None
        if wait := self._rates.ask(role):
            return Refusal(429, _SLOWER, wait)
        if role is None:
            return Refusal(
                401, "a bearer token of this run is needed; see tokens.json in its directory"
            )
        others = [v for k, v in scope["headers"] if k != b"authorization"]
        if self._tokens.among(b"\n".join((scope["raw_path"], scope["query_string"], *others))):
            return _MISPLACED
        scope[CALLER] = caller(role, headers.get("x-autopilot-name"))
        return None

    def _refuse_change(self, found: Caller, content: bytes) -> Refusal | None:
        if self._tokens.among(content):
            return _MISPLACED
        if wait := self._rates.change(found.role, len(content)):
            return Refusal(429, _SLOWER, wait)
        return None


class _CutOff(Exception):
    """Ends a request whose client stopped reading."""


def _names(host: str, hosts: frozenset[str]) -> bool:
    """Whether a Host header names one of these, on any port: tunnels change the port.

    >>> [_names(host, _HOSTS) for host in ("127.0.0.1:7007", "[::1]:1", "localhost")]
    [True, True, True]
    >>> [_names(host, _HOSTS) for host in ("evil.example", "localhost.evil.example", "a@localhost")]
    [False, False, False]
    """
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises where that is not a number
    except ValueError:
        return False
    return parts.hostname in hosts and parts.netloc == host and "@" not in host


async def _read(receive: Receive, headers: dict[str, str]) -> tuple[bytes, Refusal | None]:
    too_large = Refusal(413, f"a request body may have at most {BODY_LIMIT} bytes")
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
        return b"", Refusal(408, f"the request body did not arrive within {BODY_SECONDS:g} s")


def _again(content: bytes, receive: Receive) -> Receive:
    """A receive that first gives the body that was read already."""
    unread: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay


async def _answer(send: Send, refusal: Refusal) -> None:
    status = refusal.status
    content = problems.body(status, refusal.detail)
    headers = [
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", str(len(content)).encode()),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    if refusal.retry_after:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
