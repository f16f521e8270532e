"""Forms of tools as they go over the wire: what a model needs to fill them in, and no more.

What is left out here is still checked when an answer comes back.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

Schema = dict[str, Any]

_UNSENT = frozenset({"title", "default", "additionalProperties", "minLength", "maxLength",
                     "exclusiveMinimum", "discriminator", "$defs"})  # fmt: skip
_NEAR = range(2, 10_000)
"""Bounds outside of this are checked, but not said: no sensible value comes near them."""


def form(model: type[BaseModel]) -> Schema:
    """The JSON schema of a record, short: no references, titles, defaults or distant bounds.

    A field that may be left out is not offered as null besides. Constants are an ``enum`` of one
    and alternatives ``anyOf``, which every server knows that holds its answers to a form.

    >>> class Slice(BaseModel):
    ...     first: int | None = None
    >>> form(Slice)
    {'properties': {'first': {'type': 'integer'}}, 'type': 'object'}
    """
    schema = TypeAdapter(model).json_schema()
    short = _short(schema, schema.get("$defs", {}))
    short.pop("description", None)  # the tool has it
    return short


def _short(node: Schema, known: Mapping[str, Schema]) -> Schema:
    if "$ref" in node:
        found = known[node["$ref"].rpartition("/")[2]]
        return _short({**found, **{k: v for k, v in node.items() if k != "$ref"}}, known)
    if "const" in node:
        return {"type": node.get("type", "string"), "enum": [node["const"]]}
    short: Schema = {}
    for key, value in node.items():
        if key == "properties":
            short[key] = {name: _short(field, known) for name, field in value.items()}
        elif key == "items":
            short[key] = _short(value, known)
        elif key in ("anyOf", "oneOf"):
            short |= _alternatives(value, known, optional="default" in node)
        elif key == "prefixItems":
            short["items"] = _short(value[0], known)
        elif key not in _UNSENT and not _is_distant(key, value) and not _is_loose(key, node):
            short[key] = value
    return short


def _alternatives(choices: list[Schema], known: Mapping[str, Schema], *, optional: bool) -> Schema:
    types = {one.get("type") for one in choices}
    unsaid = {"null"} if optional else set()
    if "number" in types:
        unsaid.add("integer")  # which is a number
    wanted = [one for one in choices if one.get("type") not in unsaid]
    found = [_short(one, known) for one in wanted]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _is_loose(key: str, node: Schema) -> bool:
    """Lengths of lists are said where there is one only."""
    lengths = ("minItems", "maxItems")
    return key in lengths and node.get("minItems") != node.get("maxItems")


def _is_distant(key: str, value: Any) -> bool:
    return key in ("minimum", "maximum") and value == int(value) and int(value) not in _NEAR
