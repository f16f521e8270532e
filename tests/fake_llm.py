"""A server that plays a language model over the wire as it is told; any other is refused."""

import itertools
import json
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Raw:
    """Anything that a server may answer."""

    body: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    delay: float = 0.0
    dropped: bool = False


Script = Sequence[Raw | dict[str, Any]] | Callable[[dict[str, Any]], Raw | dict[str, Any]]


def called(*calls: tuple[str, Any], usage: bool = True, text: str = "") -> dict[str, Any]:
    """A turn that calls tools; arguments that are text go out as they are, valid or not."""
    tools = [
        {
            "id": f"call_{next(_numbers)}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": given if isinstance(given, str) else json.dumps(given),
            },
        }
        for name, given in calls
    ]
    return _turn({"role": "assistant", "content": text or None, "tool_calls": tools},
                 "tool_calls", usage=usage)  # fmt: skip


def says(text: str, *, finish: str = "stop", usage: bool = True) -> dict[str, Any]:
    """A turn of prose."""
    return _turn({"role": "assistant", "content": text}, finish, usage=usage)


def refuses(text: str = "I cannot help with that.") -> dict[str, Any]:
    """A turn with the field that marks a refusal."""
    return _turn({"role": "assistant", "content": None, "refusal": text}, "stop")


def problem(status: int, text: str = "no", code: str | None = None, **headers: str) -> Raw:
    """An error as such servers put it."""
    body = json.dumps({"error": {"message": text, "type": "error", "code": code}})
    return Raw(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


_KNOWN = frozenset({"type", "properties", "required", "items", "minItems", "maxItems", "enum",
                    "anyOf", "minimum", "maximum", "description"})  # fmt: skip


def _unsupported(form: dict[str, Any], where: str) -> str | None:
    """What servers that hold answers to a form do not all know: a reference, a missing type."""
    if unknown := set(form) - _KNOWN:
        return f"{where}: unknown keyword {min(unknown)}"
    if ("type" in form) == ("anyOf" in form):
        return f"{where}: expected either a type or alternatives"
    parts = {**form.get("properties", {}), **dict(enumerate(form.get("anyOf", ())))}
    if "items" in form:
        parts["items"] = form["items"]
    if missing := set(form.get("required", ())) - form.get("properties", {}).keys():
        return f"{where}: {min(missing)} is required and not described"
    found = (_unsupported(part, f"{where}.{name}") for name, part in parts.items())
    return next((wrong for wrong in found if wrong), None)


def _turn(message: dict[str, Any], finish: str, *, usage: bool = True) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{next(_numbers)}", "object": "chat.completion", "created": 0,
        "model": "fake-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }  # fmt: skip
    if usage:
        answer["usage"] = {
            "prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050,
            "prompt_tokens_details": {"cached_tokens": 600},
        }  # fmt: skip
    return answer


class FakeLLM:
    """Speaks ``/v1/chat/completions`` on a real socket; the last turn of a list is repeated."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "FakeLLM":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def texts(self) -> str:
        """Everything that was ever sent to it."""
        return "\n".join(json.dumps(body) for body in self.requests)

    def tools(self, request: int = 0) -> list[str]:
        """Names of the tools that a request offered."""
        return [tool["function"]["name"] for tool in self.requests[request].get("tools", [])]

    def _next(self, body: dict[str, Any]) -> Raw | dict[str, Any]:
        with self._lock:
            self.requests.append(body)
            number = len(self.requests) - 1
        for tool in body.get("tools", []):
            function = tool["function"]
            if wrong := _unsupported(function["parameters"], function["name"]):
                return problem(400, wrong)
        if callable(self.script):
            return self.script(body)
        return self.script[min(number, len(self.script) - 1)]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length) or b"{}")
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                outer.paths.append(self.path)
                answer = outer._next(body)
                raw = answer if isinstance(answer, Raw) else Raw(json.dumps(answer))
                if raw.dropped:
                    self._drop()
                    return
                if raw.delay:
                    outer.stopping.wait(raw.delay)
                self._answer(raw)

            do_GET = do_POST

            def _drop(self) -> None:
                linger = struct.pack("ii", 1, 0)  # a reset, not an orderly end
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()

            def _answer(self, raw: Raw) -> None:
                data = raw.body.encode()
                try:
                    self.send_response(raw.status)
                    self.send_header("Content-Type", raw.content_type)
                    self.send_header("Content-Length", str(len(data)))
                    for name, value in raw.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True  # who asked has gone

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches anything but this machine, by whatever library."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def refused(address: Any) -> bool:
        inet = isinstance(address, tuple)
        return inet and not str(address[0]).startswith(("127.", "::1", "localhost"))

    def checked(self: socket.socket, address: Any) -> None:
        if refused(address):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    def checked_ex(self: socket.socket, address: Any) -> int:
        if refused(address):
            raise AssertionError(f"a test tried to reach {address}")
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)
    monkeypatch.setattr(socket.socket, "connect_ex", checked_ex)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
