"""The OpenAPI document of the control API."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from autopilot_trainer.api.problems import MEDIA_TYPE

_OPEN = "/healthz"
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_NAME = {
    "name": "X-Autopilot-Name",
    "in": "header",
    "required": False,
    "description": "What the journal calls this client, after the kind that its token stands for.",
    "schema": {"type": "string", "maxLength": 40},
}


def describe(app: FastAPI) -> dict[str, Any]:
    """What clients may send and what they are answered, with what no route's signature says.

    Every error is a problem document, every call but one carries a token, and what tells the
    members of a union apart must be given.
    """
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for schema in schemas.values():
        tag = schema.get("properties", {}).get("kind", {})
        if "const" in tag:
            schema["required"] = sorted({*schema.get("required", ()), "kind"})
    schemas["Problem"] = _PROBLEM
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(operation, is_open=path == _OPEN)
    return document


def _complete(operation: dict[str, Any], *, is_open: bool) -> None:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    operation["responses"].pop("422", None)
    operation["responses"]["4XX"] = {
        "description": "Refused; the detail says why and what to do.",
        "content": {MEDIA_TYPE: problem},
    }
    if not is_open:
        operation["security"] = [{"token": []}]
        operation.setdefault("parameters", []).append(_NAME)
