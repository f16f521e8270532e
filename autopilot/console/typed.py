"""Interventions as a person types them: a kind and ``name=value`` words."""

import json
from collections.abc import Sequence

from pydantic import ValidationError

from autopilot.errors import BadInput
from autopilot.schema import INTERVENTION_TYPES, Intervention, intervention_adapter


def parse_values(pairs: Sequence[str]) -> dict[str, object]:
    """``name=value …`` as a mapping; numbers, true, false, null and JSON are read as such.

    >>> parse_values(["factor=0.5", "name=eps", "value=[0.9,0.95]"])
    {'factor': 0.5, 'name': 'eps', 'value': [0.9, 0.95]}

    Raises:
        BadInput: A word without ``=``.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise BadInput(f"{pair!r}: expected name=value")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def make_intervention(kind: str, values: dict[str, object]) -> Intervention:
    """An intervention from its kind and values.

    >>> make_intervention("freeze", parse_values(["module=2"]))
    Freeze(kind='freeze', module='2')

    Raises:
        BadInput: There is no such kind, or a value is not what it takes.
    """
    if kind not in INTERVENTION_TYPES:
        raise BadInput(f"{kind}: no such intervention; known: {', '.join(INTERVENTION_TYPES)}")
    try:
        return intervention_adapter.validate_python({"kind": kind, **_names(kind, values)})
    except ValidationError as error:
        problem = error.errors()[0]
        name, *inside = problem["loc"][1:] or ("",)
        place = ".".join(str(part) for part in (name, *(i for i in inside if isinstance(i, int))))
        if problem["type"] == "extra_forbidden":
            takes = [f for f in INTERVENTION_TYPES[kind].model_fields if f != "kind"]
            raise BadInput(f"{kind}: {place}: takes {', '.join(takes) or 'no values'}") from error
        given = problem.get("input")
        shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) else ""
        raise BadInput(f"{kind}: {place}: {problem['msg']}{shown}") from error


def _names(kind: str, values: dict[str, object]) -> dict[str, object]:
    """The values, with numbers where only text is taken as that: modules may be named 0, 1, 2."""
    fields = INTERVENTION_TYPES[kind].model_fields
    text = {name for name, field in fields.items() if field.annotation in (str, str | None)}
    return {
        name: str(value) if name in text and type(value) is int else value
        for name, value in values.items()
    }


def with_values(intervention: Intervention, pairs: Sequence[str]) -> Intervention:
    """The intervention with some values replaced."""
    values = {**intervention.model_dump(exclude={"kind"}), **parse_values(pairs)}
    return make_intervention(intervention.kind, values)
