"""The canonical JSON that is stored and hashed."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_encoder = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_row_encoder = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
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


def encode_values(values: Mapping[str, float]) -> tuple[str, dict[str, float]]:
    """The metrics of one row in the order they were reported, as JSON and as they read back.

    >>> encode_values({"loss": 2, "lr": float("inf")})
    ('{"loss":2.0,"lr":"Infinity"}', {'loss': 2.0, 'lr': inf})
    """
    # Built by hand, to the letter what a JSON encoder gives: this runs for every row of a run.
    parts: list[str] = []
    plain: dict[str, float] = {}
    for name, value in values.items():
        stored, key = _KEYS.get(name) or _key(name)
        number = plain[stored] = float(value)
        written = repr(number) if number - number == 0.0 else f'"{number_word(number)}"'
        parts.append(f"{key}:{written}")
    return "{" + ",".join(parts) + "}", plain


_KEYS: dict[str, tuple[str, str]] = {}
_MOST_KEYS = 4096


def _key(name: str) -> tuple[str, str]:
    """A metric's name as it is stored, and as a JSON string."""
    stored = encodable(name)
    if len(_KEYS) >= _MOST_KEYS:
        _KEYS.clear()
    _KEYS[name] = stored, _row_encoder.encode(stored)
    return _KEYS[name]


def decode_values(text: str) -> dict[str, float]:
    """The inverse of :func:`encode_values`."""
    values: dict[str, float] = json.loads(text)
    if ':"' in text:
        return {name: read_number(value) for name, value in values.items()}
    return values


def row_line(
    row_id: int, branch: str, step: int, time: float, source: str | None, values: str
) -> bytes:
    """What of a row goes into the hash of its block."""
    where = "null" if source is None else _quoted(source)
    return f"{row_id} {step} {time!r} {_quoted(branch)} {where} {values}\n".encode()


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    return _row_encoder.encode(text)


def event_hash(previous: str, fields: tuple[Any, ...], body: str) -> str:
    """SHA-256 over the previous hash, the fields and the body as it is stored."""
    return hashlib.sha256(f"{previous}\n{canonical(fields)}\n{body}".encode()).hexdigest()
