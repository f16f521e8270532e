"""The canonical JSON that is stored and hashed."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_encoder = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def number_word(value: float) -> float | str:
    """The value, or the word that stands for it where JSON has no number.

    >>> number_word(float("nan")), number_word(float("-inf")), number_word(1.5)
    ('NaN', '-Infinity', 1.5)
    """
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_number(value: Any) -> float:
    """The inverse of :func:`number_word`."""
    return _WORDS[value] if isinstance(value, str) else value


def encodable(text: str) -> str:
    r"""The text with lone surrogates replaced: they cannot be stored, sent or printed.

    >>> encodable("caf\u00e9 \ud800")
    'café ?'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def _finite(value: Any) -> Any:
    match value:
        case float():
            return number_word(value)
        case Mapping():
            return {str(k): _finite(v) for k, v in value.items()}
        case list() | tuple():
            return [_finite(v) for v in value]
        case _:
            return value


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; non-finite floats become words.

    >>> canonical({"b": (1, float("inf")), "a": "x"})
    '{"a":"x","b":[1,"Infinity"]}'
    """
    try:
        text = _encoder.encode(value)
    except (ValueError, TypeError):
        text = _encoder.encode(_finite(value))
    return encodable(text)


def event_hash(previous: str, fields: tuple[Any, ...], body: str) -> str:
    """SHA-256 over the previous hash, the fields and the body as it is stored."""
    return hashlib.sha256(f"{previous}\n{canonical(fields)}\n{body}".encode()).hexdigest()
