"""Errors as problem documents (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from autopilot.errors import (
    AutopilotError,
    BadInput,
    Forbidden,
    JournalError,
    NotFound,
    OutOfBounds,
    Refused,
    StaleProposal,
    Unreachable,
    Unsupported,
)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:autopilot:"

_STATUSES: dict[type[AutopilotError], tuple[int, str]] = {
    Forbidden: (403, "forbidden"),
    NotFound: (404, "not-found"),
    Unsupported: (422, "unsupported"),
    OutOfBounds: (422, "out-of-bounds"),
    StaleProposal: (409, "stale-proposal"),
    Refused: (409, "refused"),
    JournalError: (503, "journal"),
    Unreachable: (503, "unreachable"),
    BadInput: (422, "bad-input"),
    AutopilotError: (500, "error"),
}
_NAMED: dict[int, str] = {401: "unauthorized", 422: "bad-input", 429: "too-many-requests"}


def body(status: int, detail: str, *, type: str | None = None, **fields: Any) -> bytes:
    """The bytes of a problem document."""
    name = type or _NAMED.get(status)
    document = {
        "type": f"{TYPE_PREFIX}{name}" if name else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail.encode("utf-8", "replace").decode(),
        **fields,
    }
    return to_json(document, inf_nan_mode="strings", serialize_unknown=True)


def problem(
    status: int,
    detail: str,
    *,
    type: str | None = None,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> Response:
    """A problem document as a response."""
    content = body(status, detail, type=type, **fields)
    return Response(content, status, dict(headers or {}), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes the app answer every expected error with a problem document."""
    app.add_exception_handler(AutopilotError, _deliberate)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def _deliberate(_: Request, error: Exception) -> Response:
    assert isinstance(error, AutopilotError)
    status, name = next(_STATUSES[kind] for kind in _STATUSES if isinstance(error, kind))
    if isinstance(error, StaleProposal):
        return problem(status, str(error), type=name, changed=error.changed)
    return problem(status, str(error), type=name)


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [_field(found) for found in error.errors()[:10]]
    first = errors[0]
    detail = f"{first['field']}: {first['expected']}, got {first['value']}"
    return problem(422, detail, field=first["field"], errors=errors)


def _field(error: Mapping[str, Any]) -> dict[str, str]:
    place: Sequence[Any] = error["loc"]
    named = place[1:] if len(place) > 1 and place[0] in ("body", "query", "path") else place
    value = ascii(error.get("input"))
    return {
        "field": ".".join(str(part) for part in named),
        "expected": str(error["msg"]).encode("utf-8", "replace").decode(),
        "value": value if len(value) <= 120 else f"{value[:117]}...",
    }


def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), headers=error.headers)
