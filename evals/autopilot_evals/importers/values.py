"""Numbers, steps and times from what files hold, which may be text."""

import math
from datetime import UTC, datetime
from typing import Final

LAST_STEP: Final = 2**53
_MILLISECONDS: Final = 1e11
"""Unix times above this are not seconds: as seconds it is the year 5138."""


def is_blank(value: object) -> bool:
    """Whether a field is empty, which is how tables write that a row has no such value."""
    return value is None or (isinstance(value, str) and not value.strip())


def number(value: object) -> float | None:
    """The number a field holds, NaN and infinities in any spelling included; None if it is none.

    >>> number("1e-3"), number("NaN"), number("-inf"), number(True), number("n/a"), number([1])
    (0.001, nan, -inf, 1.0, None, None)
    """
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and "_" not in value:
        try:
            return float(value)
        except ValueError:
            return None
    return None


def step_number(value: object) -> int | None:
    """The step a field names; None if that is not a whole number from 0 to 2**53.

    >>> step_number("100.0"), step_number(7), step_number(-1), step_number(0.5), step_number("")
    (100, 7, None, None, None)
    """
    given = number(value)
    if given is None or not 0 <= given <= LAST_STEP or given != int(given):
        return None
    return int(given)


def unix_time(value: object) -> float | None:
    """Unix seconds from seconds, milliseconds, microseconds, nanoseconds or ISO 8601 text.

    Text without an offset is taken as UTC.

    >>> unix_time(1.7e9), unix_time(1.7e12), unix_time("2023-11-14T22:13:20Z"), unix_time("noon")
    (1700000000.0, 1700000000.0, 1700000000.0, None)
    """
    given = number(value)
    if given is not None:
        if not math.isfinite(given):
            return None
        while abs(given) > _MILLISECONDS:
            given /= 1000.0
        return given
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
