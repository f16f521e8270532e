"""What was asked of a language model, what it took, and what came of it."""

from typing import Literal

from pydantic import Field

from autopilot.schema.base import Record

Purpose = Literal["diagnose", "review", "report"]
"""To propose for an episode; to explain a proposal to the person who decides; to tell of a run."""


class Usage(Record):
    """What asking a model took.

    Attributes:
        calls: Requests, those whose answers were thrown away included.
        input_tokens: All that were read, those from a cache included.
        output_tokens: All that were written, reasoning included.
        price_usd: None where nobody knows the price, which is not nothing.
        seconds: From the question to the answer.
    """

    calls: int = Field(default=0, ge=0)
    input_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    price_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Consultation(Record):
    """One question to a language model.

    Attributes:
        model: As its vendor calls it.
        host: Where it was asked; never with a key or a path.
        prompt: Name and version of the prompt, as in ``diagnose@1``.
        prompt_sha: SHA-256 of the prompt file.
        window_sha: SHA-256 of what it was shown, as rendered.
        proposal: Of a review, the id of the proposal it is about.
        outcome: ``proposal`` or ``review``, else the kind of :class:`NoProposal` it came to.
        text: The diagnosis in words, or why there is none; for people.
        unverified: Figures it cited that were not found in what it was shown.
    """

    purpose: Purpose
    model: str = Field(max_length=200)
    host: str = Field(max_length=300)
    prompt: str = Field(max_length=100)
    prompt_sha: str = Field(max_length=64)
    window_sha: str = Field(default="", max_length=64)
    episode: str | None = Field(default=None, max_length=100)
    proposal: str | None = Field(default=None, max_length=100)
    outcome: str = Field(max_length=40)
    text: str = Field(default="", max_length=4000)
    unverified: int = Field(default=0, ge=0)
    usage: Usage = Usage()
