"""A chat model that answers what was recorded, in place of a server.

Loads the model's stack; only what asks imports it.
"""

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import SkipValidation

from autopilot_agents.llm.messages import message_of
from autopilot_agents.llm.tape import AnsweringTape


class RecordedChat(BaseChatModel):
    """Gives the replies of a tape, in order; whoever asks has told the tape what it asks."""

    tape: SkipValidation[AnsweringTape]

    @property
    def _llm_type(self) -> str:
        return "recorded"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """What it is offered was held against the recording already."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = message_of(self.tape.next_reply())
        return ChatResult(generations=[ChatGeneration(message=reply)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)
