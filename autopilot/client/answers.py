"""What a control API answers, as records and as errors."""

import json
import re
from typing import Any, TypeVar

import httpx2
from pydantic import TypeAdapter, ValidationError

from autopilot.errors import (
    AutopilotError,
    BadInput,
    Forbidden,
    JournalError,
    NotARun,
    NotFound,
    OutOfBounds,
    Refused,
    StaleProposal,
    Unreachable,
    Unsupported,
)

_T = TypeVar("_T")

_ERRORS: dict[str, type[AutopilotError]] = {
    "forbidden": Forbidden,
    "unauthorized": Forbidden,
    "not-found": NotFound,
    "unsupported": Unsupported,
    "out-of-bounds": OutOfBounds,
    "refused": Refused,
    "bad-input": BadInput,
    "journal": JournalError,
    "unreachable": Unreachable,
    "too-many-requests": Unreachable,
}
_BY_STATUS: dict[int, type[AutopilotError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Refused,
    422: BadInput,
}


def read_as(answer: TypeAdapter[_T], value: Any) -> _T:
    try:
        return answer.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = f"{place}: {first['msg']}"
        raise NotARun(
            f"the run's answer is not understood ({said}); is its version another?"
        ) from error


def refusal(response: httpx2.Response, url: str) -> AutopilotError:
    """The error that a problem document stands for."""
    status = response.status_code
    try:
        problem = json.loads(response.content)
        detail, name = str(problem["detail"]), str(problem["type"]).removeprefix("urn:autopilot:")
    except (ValueError, KeyError, TypeError):
        if status == 503:
            return Unreachable(f"{url} is busy: too many clients are connected")
        return NotARun(f"{url} answers {status}, but not as a run does")
    if name == "stale-proposal":
        return StaleProposal(detail, str(problem.get("changed", "")))
    kind = _ERRORS.get(name) or _BY_STATUS.get(status, AutopilotError)
    return kind(detail)


def why(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return re.sub(r"^\[Errno -?\d+\] ", "", lines[0]) if lines else type(error).__name__
