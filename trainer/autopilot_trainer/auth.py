"""Who is asking: one token per role, kept where only the run's owner can read them."""

import contextlib
import hmac
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from autopilot.errors import BadInput
from autopilot.schema import Record

Role = Literal["viewer", "agent", "operator"]
RANKS: dict[Role, int] = {"viewer": 0, "agent": 1, "operator": 2}
TOKENS_FILE = "tokens.json"

_ACTOR_KINDS: dict[Role, str] = {"viewer": "viewer", "agent": "agent", "operator": "human"}


class Tokens(Record):
    """The bearer token of each role."""

    viewer: str = Field(min_length=16, repr=False)
    agent: str = Field(min_length=16, repr=False)
    operator: str = Field(min_length=16, repr=False)

    def role(self, token: str) -> Role | None:
        """The role that a token stands for; every token is compared, in constant time."""
        given = token.encode()
        found: Role | None = None
        for role in RANKS:
            if hmac.compare_digest(getattr(self, role).encode(), given):
                found = role
        return found

    def among(self, text: bytes) -> bool:
        """Whether one of the tokens stands in a text that is to be shown, logged or kept."""
        return any(getattr(self, role).encode() in text for role in RANKS)


class Caller(NamedTuple):
    """Who sent a request: the role comes from the token, only the name from the client."""

    role: Role
    actor: str


def caller(role: Role, name: str | None) -> Caller:
    """The caller of that role.

    >>> caller("agent", "human:eve")
    Caller(role='agent', actor='agent:humaneve')
    """
    cleaned = re.sub(r"[^A-Za-z0-9_.@+-]", "", name or "")[:40] or "unnamed"
    return Caller(role, f"{_ACTOR_KINDS[role]}:{cleaned}")


def make_tokens() -> Tokens:
    """New tokens, of 256 bits each."""
    return Tokens(**{role: secrets.token_urlsafe(32) for role in RANKS})


def write_tokens(folder: str | Path, tokens: Tokens) -> Path:
    """Writes the tokens into a run directory; nobody else can read them at any moment."""
    path = Path(folder) / TOKENS_FILE
    descriptor, aside = tempfile.mkstemp(dir=folder, prefix=".tokens-")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(tokens.model_dump_json() + "\n")
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    return path


def kept_tokens(folder: str | Path) -> Tokens | None:
    """The tokens of an earlier process of the run, so that who holds one keeps it.

    None where there are none, or where others than their owner could read them meanwhile.
    """
    try:
        seen_by_others = (Path(folder) / TOKENS_FILE).stat().st_mode & 0o077
        return None if seen_by_others else read_tokens(folder)
    except (OSError, BadInput):
        return None


def read_tokens(folder: str | Path) -> Tokens:
    """Reads the tokens of a run directory."""
    path = Path(folder) / TOKENS_FILE
    try:
        return Tokens.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read tokens: {path}: {error.strerror}") from error
    except ValidationError as error:
        raise BadInput(f"cannot read tokens: {path} does not hold one for each role") from error
