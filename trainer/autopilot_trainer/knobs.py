"""The user's own controls: knobs with bounds, and actions with typed arguments."""

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autopilot.errors import BadInput
from autopilot.schema import Scalar, Setting

_NAMES: dict[type, Literal["bool", "int", "float", "str"]] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
}


_TYPES: dict[str, type] = {name: kind for kind, name in _NAMES.items()}

log = logging.getLogger("autopilot.trainer")
_MOST_TOLD = 10


@dataclass(frozen=True)
class Knob:
    """A value that the training script lets others read and set."""

    name: str
    get: Callable[[], Scalar]
    set: Callable[[Any], None]
    setting: Setting
    _told: list[str] = field(default_factory=list, compare=False)

    def published(self) -> Setting:
        """The knob with its present value; without one where the script's function fails."""
        try:
            value = _TYPES[self.setting.type](self.get())
        except Exception as error:
            if repr(error) not in self._told and len(self._told) < _MOST_TOLD:
                self._told.append(repr(error))  # it is asked for every now and then: tell it once
                log.exception("knob %s: its value cannot be read", self.name)
            value = None
        return self.setting.model_copy(update={"value": value})


def make_knob(
    name: str,
    get: Callable[[], Scalar],
    set_: Callable[[Any], None],
    *,
    minimum: float | None,
    maximum: float | None,
    choices: Sequence[Scalar] | None,
    description: str,
) -> Knob:
    """A knob whose type and default are those of its present value.

    Raises:
        BadInput: A number without bounds, or a value of a type that does not cross the wire.
    """
    value = get()
    kind = _NAMES.get(type(value))
    if kind is None:
        raise BadInput(f"knob {name!r}: its value is {value!r}; expected bool, int, float or str")
    if kind in ("int", "float") and choices is None and (minimum is None or maximum is None):
        raise BadInput(f"knob {name!r}: a number needs minimum= and maximum=, or choices=")
    setting = Setting(
        name=name,
        value=value,
        default=value,
        minimum=minimum,
        maximum=maximum,
        choices=None if choices is None else tuple(choices),
        type=kind,
        description=description,
    )
    return Knob(name, get, set_, setting)


@dataclass(frozen=True)
class Action:
    """A function that the training script lets others call at a step boundary."""

    name: str
    call: Callable[..., Any]
    arguments: dict[str, str]


def make_action(name: str, call: Callable[..., Any]) -> Action:
    """An action whose arguments are the function's annotated parameters.

    Raises:
        BadInput: A parameter has no annotation of bool, int, float or str.
    """
    arguments: dict[str, str] = {}
    for parameter in inspect.signature(call, eval_str=True).parameters.values():
        kind = _NAMES.get(parameter.annotation)
        if kind is None:
            raise BadInput(
                f"action {name!r}: parameter {parameter.name!r} must be annotated as bool, int, "
                "float or str"
            )
        optional = parameter.default is not inspect.Parameter.empty
        arguments[parameter.name] = kind + ("?" if optional else "")
    return Action(name, call, arguments)
