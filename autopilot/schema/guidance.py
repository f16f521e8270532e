"""What an operator tells the agents of a run: advice, which no policy heeds."""

from typing import Final

from pydantic import Field

from autopilot.schema.base import Record

LONGEST_GUIDANCE: Final = 500
"""Characters."""


class Guidance(Record):
    """An operator's advice to whoever pilots a run; it widens nothing that the policy allows.

    Attributes:
        actor: Who said it, from the token.
        at: When, in seconds since the epoch.
        step: The step that the run was at.
        withdrawn_by: Who took it back; None while it is in force.
    """

    id: str = Field(min_length=1, max_length=20)
    text: str = Field(min_length=1, max_length=LONGEST_GUIDANCE)
    actor: str = Field(max_length=100)
    at: float
    step: int
    withdrawn_by: str | None = Field(default=None, max_length=100)
