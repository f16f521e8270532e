"""Asking a model: the one place where its stack is put together.

Loads the model's stack; the agent imports it when it first asks.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import reduce
from operator import or_
from typing import Any

from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_openai import ChatOpenAI
from langsmith import tracing_context
from openai import DefaultAsyncHttpxClient

from autopilot_agents.llm.actions import Answer
from autopilot_agents.llm.conclude import Conclude, Judge, with_note
from autopilot_agents.llm.faults import unanswered
from autopilot_agents.llm.lookups import LookUp
from autopilot_agents.llm.meter import Meter
from autopilot_agents.llm.outcome import Course, Unanswered
from autopilot_agents.llm.settings import Settings

Check = Callable[[str], str | None]

_SDK_RETRIES = 2
"""The SDK alone tries again; retries within retries multiply."""


async def decide(
    settings: Settings,
    system: str,
    shown: str,
    *,
    offered: Sequence[type[Answer]],
    lookups: Mapping[str, LookUp],
    judge: Judge,
    course: Course,
) -> Answer:
    """One valid answer out of those offered.

    Args:
        settings: Which model.
        system: The prompt; nothing of the run is in it.
        shown: What it is shown, fenced.
        offered: The answers, one tool each.
        lookups: What it may look up, by name.
        judge: Checks an answer beyond its form.
        course: Takes up what it takes.

    Raises:
        Unanswered: There is none, and why.
    """
    chosen = lookups if settings.max_lookups else {}
    names = [answer.__name__ for answer in offered]
    conclude = Conclude(names, chosen, settings.max_lookups, judge, course)
    async with _model(settings, Meter(course)) as model:
        agent: Any = create_agent(
            model,
            tools=[_tool(name, lookup) for name, lookup in chosen.items()],
            system_prompt=system,
            response_format=ToolStrategy(reduce(or_, offered), handle_errors=False),
            middleware=[conclude],
        )
        with tracing_context(enabled=False):  # whatever the environment says, nothing leaves
            state = await agent.ainvoke({"messages": [HumanMessage(shown)]})
    answer = state.get("structured_response")
    if not isinstance(answer, Answer):
        raise Unanswered("protocol", "the model came to no answer")
    return answer


async def explain(
    settings: Settings, system: str, shown: str, *, check: Check, course: Course
) -> str:
    """An explanation in words; figures it got wrong are sent back once.

    Args:
        settings: Which model.
        system: The prompt.
        shown: What it is shown, fenced.
        check: Says what is wrong with a text; None where nothing is.
        course: Takes up what it takes.

    Raises:
        Unanswered: There is none, and why.
    """
    messages: list[AnyMessage] = [SystemMessage(system), HumanMessage(shown)]
    async with _model(settings, Meter(course)) as model:
        while True:
            text = await _words(model, messages)
            problem = check(text) if text else "it was empty"
            if problem is None:
                return text
            if course.repairs >= 1:
                if text:
                    return text
                raise Unanswered("invalid", "the model answered nothing")
            course.repairs += 1
            messages = with_note(messages, problem)


async def _words(model: BaseChatModel, messages: list[AnyMessage]) -> str:
    try:
        with tracing_context(enabled=False):
            said = await model.ainvoke(messages)
    except Exception as error:
        raise unanswered(error) from error
    if refusal := said.additional_kwargs.get("refusal"):
        raise Unanswered("refused", f"the model refused: {refusal}")
    if said.response_metadata.get("finish_reason") == "content_filter":
        raise Unanswered("refused", "the server withheld the answer (content_filter)")
    return said.text.strip()


def _tool(name: str, lookup: LookUp) -> BaseTool:
    return StructuredTool.from_function(
        coroutine=lookup.ask, name=name, description=lookup.words, args_schema=lookup.arguments
    )


@asynccontextmanager
async def _model(settings: Settings, meter: Meter) -> AsyncIterator[BaseChatModel]:
    """The model, on connections of its own that are closed afterwards."""
    key = settings.key()
    if settings.vendor is not None:
        given = {} if key is None else {"api_key": key.get_secret_value()}
        yield _of_vendor(settings, meter, given)
        return
    assert key is not None, "only a vendor's library finds its key by itself"
    async with DefaultAsyncHttpxClient(
        timeout=settings.timeout,
        follow_redirects=False,  # the text of a run goes where the user said, and nowhere else
    ) as connections:
        yield ChatOpenAI(
            model=settings.model_name,
            base_url=settings.url,
            api_key=key,
            http_async_client=connections,
            timeout=settings.timeout,
            max_retries=_SDK_RETRIES,
            max_completion_tokens=settings.max_output,
            use_responses_api=False,
            disable_streaming=True,
            callbacks=[meter],
        )


def _of_vendor(settings: Settings, meter: Meter, given: dict[str, Any]) -> BaseChatModel:
    try:
        model = init_chat_model(
            settings.model,
            timeout=settings.timeout,
            max_retries=_SDK_RETRIES,
            max_tokens=settings.max_output,
            callbacks=[meter],
            **given,
        )
    except ImportError as error:
        raise Unanswered("fatal", f"{settings.model}: {error}") from error
    except ValueError as error:
        raise Unanswered("fatal", f"AUTOPILOT_LLM_MODEL={settings.model}: {error}") from error
    assert isinstance(model, BaseChatModel)
    return model
