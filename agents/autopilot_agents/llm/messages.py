"""A model's messages and requests in the vocabulary of the journal, whoever its vendor is.

Loads the model's stack; only what asks imports it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, ToolMessage

from autopilot.schema.consultations import ModelReply, ToolCall
from autopilot_agents.llm.tokens import bound_tokens


def reply_of(message: AIMessage) -> ModelReply:
    """A message as it is journaled."""
    used = message.usage_metadata
    calls = [
        ToolCall(id=call["id"], name=call["name"], arguments=json.dumps(call["args"]))
        for call in message.tool_calls
    ]
    calls += [
        ToolCall(id=call["id"], name=call["name"], arguments=call["args"] or "", valid=False)
        for call in message.invalid_tool_calls
    ]
    return ModelReply(
        content=message.content,
        calls=tuple(calls),
        refusal=message.additional_kwargs.get("refusal"),
        finish=message.response_metadata.get("finish_reason"),
        input_tokens=used["input_tokens"] if used else None,
        cached_tokens=used.get("input_token_details", {}).get("cache_read") or 0 if used else 0,
        output_tokens=used["output_tokens"] if used else None,
    )


def message_of(reply: ModelReply) -> AIMessage:
    """A journaled message as the stack reads it."""
    valid = [call for call in reply.calls if call.valid]
    broken = [call for call in reply.calls if not call.valid]
    usage: Any = None
    if reply.input_tokens is not None and reply.output_tokens is not None:
        usage = {
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
            "input_token_details": {"cache_read": reply.cached_tokens},
        }
    return AIMessage(
        content=reply.content,
        additional_kwargs={} if reply.refusal is None else {"refusal": reply.refusal},
        response_metadata={"finish_reason": reply.finish},
        tool_calls=[
            {"id": call.id, "name": call.name or "", "args": json.loads(call.arguments)}
            for call in valid
        ],
        invalid_tool_calls=[
            {"id": call.id, "name": call.name, "args": call.arguments, "error": None}
            for call in broken
        ],
        usage_metadata=usage,
    )


def parts_of(
    system: str, messages: Sequence[AnyMessage], tools: Sequence[Mapping[str, Any]] = ()
) -> dict[str, str]:
    """The texts of a request, without what a library numbers anew every time."""
    return {
        "system": system,
        "tools": json.dumps(tools, separators=(",", ":")),
        "messages": json.dumps([_plain(message) for message in messages], ensure_ascii=False),
    }


def request_tokens(parts: Mapping[str, str]) -> int:
    """An upper estimate of a request's tokens; line breaks of its text count as one."""
    return bound_tokens("\n".join(parts.values()).replace("\\n", "\n"))


def _plain(message: BaseMessage) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.type, "content": message.content}
    if isinstance(message, AIMessage):
        plain["calls"] = [(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        plain["call"] = message.tool_call_id
    return plain
