"""The base of everything that crosses a boundary."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Record(BaseModel):
    """What crosses a boundary: frozen, closed, NaN-safe.

    Unknown fields are errors. NaN and infinities travel as the strings "NaN", "Infinity" and
    "-Infinity" and read back as floats where a field is a :data:`Number`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def _read_number(value: Any) -> Any:
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(_read_number)]
"""A float that may be NaN or infinite, also in JSON."""
