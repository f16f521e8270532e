"""Asking a model: the one place where its stack is put together.

Loads the model's stack; the agent imports it when it first asks.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import reduce
from operator import or_
from typing import Any, TypeVar

from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_openai import ChatOpenAI
from langsmith import tracing_context
from openai import DefaultAsyncHttpxClient
from pydantic import BaseModel

from autopilot_agents.llm.allowance import Allowance
from autopilot_agents.llm.conclude import Conclude, with_note
from autopilot_agents.llm.faults import unanswered
from autopilot_agents.llm.forms import form
from autopilot_agents.llm.lookups import LookUp
from autopilot_agents.llm.messages import parts_of
from autopilot_agents.llm.meter import Meter
from autopilot_agents.llm.outcome import Course, Unanswered
from autopilot_agents.llm.recorded_chat import RecordedChat
from autopilot_agents.llm.settings import Settings
from autopilot_agents.llm.tape import AnsweringTape, Tape

Check = Callable[[str], str | None]
Said = TypeVar("Said", bound=BaseModel)

_SDK_RETRIES = 2
"""The SDK alone tries again; retries within retries multiply."""


async def decide(
    settings: Settings,
    system: str,
    shown: str,
    *,
    offered: Sequence[type[Said]],
    lookups: Mapping[str, LookUp],
    judge: Callable[[Said], str | None],
    course: Course,
    tape: Tape | None = None,
    most_tokens: int = 40_000,
) -> Said:
    """One valid answer out of those offered.

    Args:
        settings: Which model.
        system: The prompt; nothing of the run is in it.
        shown: What it is shown, fenced.
        offered: The answers, one tool each.
        lookups: What it may look up, by name.
        judge: Checks an answer beyond its form.
        course: Takes up what it takes.
        tape: Takes up what is asked and answered, or answers instead of a server.
        most_tokens: Of all requests together.

    Raises:
        Unanswered: There is none, and why.
    """
    chosen = lookups if settings.max_lookups else {}
    names = [answer.__name__ for answer in offered]
    tape = tape if tape is not None else Tape()
    conclude = Conclude(
        names, chosen, settings.max_lookups, judge, course, tape, Allowance(most_tokens)
    )
    async with _model(settings, Meter(course, tape), tape) as model:
        agent: Any = create_agent(
            model,
            tools=[_tool(name, lookup) for name, lookup in chosen.items()],
            system_prompt=system,
            response_format=_strategy(offered),
            middleware=[conclude],
        )
        with tracing_context(enabled=False):  # whatever the environment says, nothing leaves
            state = await agent.ainvoke({"messages": [HumanMessage(shown)]})
    said: Any = state.get("structured_response")
    if type(said) not in offered:
        raise Unanswered("protocol", "the model came to no answer")
    found: Said = said
    return found


async def explain(
    settings: Settings,
    system: str,
    shown: str,
    *,
    check: Check,
    course: Course,
    tape: Tape | None = None,
) -> str:
    """An explanation in words; figures it got wrong are sent back once.

    Args:
        settings: Which model.
        system: The prompt.
        shown: What it is shown, fenced.
        check: Says what is wrong with a text; None where nothing is.
        course: Takes up what it takes.
        tape: Takes up what is asked and answered.

    Raises:
        Unanswered: There is none, and why.
    """
    messages: list[AnyMessage] = [SystemMessage(system), HumanMessage(shown)]
    tape = tape if tape is not None else Tape()
    async with _model(settings, Meter(course, tape), tape) as model:
        while True:
            tape.ask(parts_of(system, messages[1:]))
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


def _strategy(offered: Sequence[type[BaseModel]]) -> ToolStrategy[Any]:
    """One tool an answer, with its short form."""
    strategy: ToolStrategy[Any] = ToolStrategy(reduce(or_, offered), handle_errors=False)
    for answer, spec in zip(offered, strategy.schema_specs, strict=True):
        spec.json_schema = form(answer)
    return strategy


def _tool(name: str, lookup: LookUp) -> BaseTool:
    async def look(**arguments: Any) -> str:
        return await lookup.ask(**lookup.arguments.model_validate(arguments).model_dump())

    return StructuredTool.from_function(
        coroutine=look, name=name, description=lookup.words, args_schema=form(lookup.arguments)
    )


@asynccontextmanager
async def _model(settings: Settings, meter: Meter, tape: Tape) -> AsyncIterator[BaseChatModel]:
    """The model, on connections of its own that are closed afterwards; or what was taped of it."""
    if isinstance(tape, AnsweringTape):
        yield RecordedChat(tape=tape, callbacks=[meter])
        return
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
