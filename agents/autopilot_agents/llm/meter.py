"""Counts what asking takes, and tapes what it brings, answers that are thrown away included.

Loads the model's stack; only what asks imports it.
"""

import json
from typing import Any
from uuid import UUID

import openai
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import ValidationError

from autopilot_agents.llm.faults import unanswered
from autopilot_agents.llm.messages import reply_of
from autopilot_agents.llm.outcome import Course
from autopilot_agents.llm.tape import UNREADABLE, Tape, Unreadable
from autopilot_agents.llm.tokens import bound_tokens


class Meter(AsyncCallbackHandler):
    """Tokens of every turn as the server counts them.

    Where it does not say, or was cut off while it may have been at work, they are taken from the
    length of the text, rather too many than too few.

    Args:
        course: Takes the counts up.
        tape: Takes the replies up.
    """

    def __init__(self, course: Course, tape: Tape) -> None:
        self._course = course
        self._tape = tape

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        self._course.calls += 1
        texts = [str(message.content) for batch in messages for message in batch]
        offered = kwargs.get("invocation_params", {}).get("tools")
        tools = json.dumps(offered, default=str, separators=(",", ":"))
        self._course.under_way[run_id] = bound_tokens("\n".join((*texts, tools)))

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        read = self._course.under_way.pop(run_id, 0)
        for batch in response.generations:
            for generation in batch:
                if isinstance(generation, ChatGeneration):
                    read = self._count(generation.message, read)
                    if isinstance(generation.message, AIMessage):
                        self._tape.answer(reply_of(generation.message))
        self._course.read += read

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        read = self._course.under_way.pop(run_id, 0)
        if not _turned_away(error):
            self._course.read += read
        if isinstance(error, ValidationError | Unreadable):
            self._tape.fail(UNREADABLE, "the arguments were no JSON object")
        elif isinstance(error, Exception):
            fault = unanswered(error)
            self._tape.fail(fault.kind, fault.words)

    def _count(self, message: BaseMessage, read: int) -> int:
        """Add what was written; what was read, by the server's word or else the estimate."""
        used = message.usage_metadata if isinstance(message, AIMessage) else None
        if not used or not used["input_tokens"]:
            calls = message.tool_calls if isinstance(message, AIMessage) else []
            text = str(message.content) + json.dumps(calls, default=str)
            self._course.written += bound_tokens(text)
            return read
        self._course.cached += used.get("input_token_details", {}).get("cache_read", 0)
        self._course.written += used["output_tokens"]
        return used["input_tokens"]


def _turned_away(error: BaseException) -> bool:
    """The server did no work for it, so nobody pays."""
    unreached = isinstance(error, openai.APIConnectionError)
    late = isinstance(error, openai.APITimeoutError)
    return isinstance(error, openai.APIStatusError) or (unreached and not late)
