"""What was asked of a language model, what it took, and what came of it."""

from typing import Any, Literal

from pydantic import Field

from autopilot.schema.base import Record
from autopilot.schema.signals import Evidence

Purpose = Literal["diagnose", "review", "report", "ask"]
"""To propose for an episode; to explain a proposal to the person who decides; to tell of a run; to
answer a question about one."""


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


class Asked(Record):
    """What one request to a model said, by the SHA-256 of each part, so that two can be compared.

    Attributes:
        system: The prompt, filled in.
        tools: Names, descriptions and forms of what could be called, in order.
        messages: The conversation so far, keys of servers taken out.
    """

    system: str = Field(max_length=64)
    tools: str = Field(max_length=64)
    messages: str = Field(max_length=64)


class ToolCall(Record):
    """One call that a model made.

    Attributes:
        arguments: As JSON; as it came where it is none.
        valid: The arguments were one JSON object.
    """

    id: str | None
    name: str | None
    arguments: str
    valid: bool = True


class ModelReply(Record):
    """One message of a model, as it came but for keys of servers.

    Attributes:
        content: Text, or a vendor's blocks.
        refusal: What it said where it marked its answer as a refusal.
        input_tokens: None where the server did not count.
    """

    content: Any
    calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    finish: str | None = None
    input_tokens: int | None = None
    cached_tokens: int = 0
    output_tokens: int | None = None


class Turn(Record):
    """One request to a model, and what came of it.

    Attributes:
        reply: None where none came.
        fault: Why none came: a kind of :class:`NoProposal`, or ``arguments`` for a message that
            could not be read; None as well where a deadline passed meanwhile.
        words: The same for a person.
    """

    asked: Asked
    reply: ModelReply | None = None
    fault: str | None = Field(default=None, max_length=40)
    words: str = Field(default="", max_length=1000)


class LookedUp(Record):
    """What a model looked up before it answered.

    Attributes:
        arguments: As JSON, with sorted names.
        text: What it was told.
        figures: What it could cite from then on.
    """

    name: str
    arguments: str
    text: str
    figures: tuple[Evidence, ...] = ()


class Session(Record):
    """The turns of one question, whole: with them the same code comes to the same answer again.

    Attributes:
        max_lookups: How many look-ups it was granted.
        lookups: Which it was offered.
        window: The :class:`Window` it was shown, as JSON, deflated, in base64; empty for
            explanations, which are not played again.
        left_out: Why turns, look-ups and window are not here, where they are not.
    """

    max_lookups: int = Field(ge=0)
    lookups: tuple[str, ...] = ()
    window: str = ""
    turns: tuple[Turn, ...] = ()
    looked_up: tuple[LookedUp, ...] = ()
    left_out: str = Field(default="", max_length=300)


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
        session: Its turns; None in journals of earlier versions.
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
    session: Session | None = None
