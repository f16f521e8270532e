"""Brings a model to one answer, or to a clear end without one.

A stock agent ends without an answer and without an error on prose, broken JSON and refusals, and
repeats schema errors without a cap. Loads the model's stack; only what asks imports it.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from langchain.agents.middleware.types import (
    AgentMiddleware,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
)
from langchain.agents.structured_output import (
    MultipleStructuredOutputsError,
    StructuredOutputValidationError,
    ToolStrategy,
)
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command
from pydantic import ValidationError

from autopilot_agents.llm.allowance import Allowance
from autopilot_agents.llm.faults import unanswered
from autopilot_agents.llm.fence import clean, fence
from autopilot_agents.llm.messages import parts_of, request_tokens
from autopilot_agents.llm.outcome import Course, Unanswered
from autopilot_agents.llm.tape import Tape, Unreadable
from autopilot_agents.llm.tokens import bound_tokens, first_lines

REPAIRS = 2
_LOOKUP_TOKENS = 1200

Judge = Callable[[Any], str | None]
"""What is wrong with an answer, in words that help to put it right; None where nothing is."""


class Conclude(AgentMiddleware[Any, Any, Any]):
    """Holds a model to one valid answer.

    Look-ups are capped, and no longer offered once used up. What is no valid answer is sent back
    with the reason, twice at most; the broken turn itself is not repeated to the model. What a
    look-up gives is fenced and cut, and its errors name no hosts.

    Args:
        offered: Names of the answers.
        lookups: Names of the look-ups.
        max_lookups: For the whole decision.
        judge: Checks an answer that has the right form.
        course: Counts.
        tape: Is told of every request before it is made.
        allowance: Of tokens; what does not fit into it is not asked.
    """

    def __init__(
        self,
        offered: Collection[str],
        lookups: Collection[str],
        max_lookups: int,
        judge: Judge,
        course: Course,
        tape: Tape,
        allowance: Allowance,
    ) -> None:
        super().__init__()
        self._offered = ", ".join(offered)
        self._answers, self._lookups = frozenset(offered), frozenset(lookups)
        self._max_lookups = max_lookups
        self._judge = judge
        self._course = course
        self._tape = tape
        self._allowance = allowance

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """One turn of the model, repaired where that is needed."""
        bare = request.override(tools=[])
        self._allowance.measure(self._course.read)
        enough = self._allowance.fits_lookups(_size(request), _size(bare))
        if self._course.lookups >= self._max_lookups or not enough:
            request = bare
        turn = request
        while True:
            response, problem = await self._turn(turn, handler)
            if response is not None:
                return response
            problem = clean(problem, 400)
            repairs = self._course.repairs
            turn = request.override(messages=with_note(request.messages, problem))
            self._allowance.measure(self._course.read)
            if repairs >= REPAIRS or not self._allowance.fits(_size(turn)):
                raise Unanswered("invalid", f"no usable answer after {repairs} repairs: {problem}")
            self._course.repairs += 1

    async def _turn(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> tuple[ModelResponse[Any] | None, str]:
        try:
            self._tape.ask(_parts(request))
            self._allowance.begin(_size(request), _size(request.override(tools=[])))
            response = await handler(request)
        except StructuredOutputValidationError as error:
            return None, f"{error.tool_name}: {_schema_words(error.source)}"
        except MultipleStructuredOutputsError as error:
            return None, f"{len(error.tool_names)} answers in one turn; give exactly one"
        except (ValidationError, Unreadable):  # of a turn whose arguments are no object
            return None, "the arguments must be one JSON object"
        except Exception as error:
            raise unanswered(error) from error
        said = next((m for m in response.result if isinstance(m, AIMessage)), None)
        if said is None:
            raise Unanswered("protocol", "the server answered no message")
        problem = self._problem(said, response.structured_response, lookups=bool(request.tools))
        if problem is not None:
            return None, problem
        if response.structured_response is not None:
            response.result = [_only(said, self._answers), *response.result[1:]]
        return response, ""

    def _problem(self, said: AIMessage, answer: Any, *, lookups: bool) -> str | None:
        """What is wrong with a turn; None where it is an answer, or asks for look-ups."""
        if said.additional_kwargs.get("refusal"):
            raise Unanswered("refused", f"the model refused: {said.additional_kwargs['refusal']}")
        finish = said.response_metadata.get("finish_reason")
        if finish == "content_filter":
            raise Unanswered("refused", "the server withheld the answer (content_filter)")
        if said.invalid_tool_calls:
            return "the arguments were not valid JSON"
        if answer is not None:
            return self._judge(answer)
        if finish == "length":
            return "the answer was cut off at the limit of its length; be much shorter"
        called = [call["name"] for call in said.tool_calls]
        strange = [name for name in called if name not in self._lookups]
        if strange:
            return f"there is no tool {clean(strange[0], 60)}; the answers are: {self._offered}"
        if called and not lookups:
            return f"no look-ups are left; answer with one of: {self._offered}"
        return None if called else f"prose is no answer; call one of: {self._offered}"

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """One look-up: counted, fenced, cut."""
        name, call_id = request.tool_call["name"], request.tool_call["id"]
        if self._course.lookups >= self._max_lookups or not self._allowance.room():
            return ToolMessage("no look-ups are left", tool_call_id=call_id, name=name)
        self._course.lookups += 1
        try:
            result = await handler(request)
            text = str(result.content) if isinstance(result, ToolMessage) else ""
        except ValidationError as error:
            text = f"{name}: {_schema_words(error)}"
        except Unanswered:
            raise
        except Exception as error:
            text = f"{name} failed: {type(error).__name__}"
        told = fence(first_lines(text, min(_LOOKUP_TOKENS, self._allowance.room())))
        self._allowance.tell(bound_tokens(told))
        return ToolMessage(told, tool_call_id=call_id, name=name)


def _size(request: ModelRequest[Any]) -> int:
    return request_tokens(_parts(request))


def _parts(request: ModelRequest[Any]) -> dict[str, str]:
    """What a request says, for the tape: its prompt, its tools, its messages."""
    system = request.system_message.text if request.system_message is not None else ""
    tools = [
        {"name": tool.name, "description": tool.description, "form": tool.args_schema}
        for tool in request.tools
        if isinstance(tool, BaseTool)
    ]
    strategy = request.response_format
    assert isinstance(strategy, ToolStrategy), "answers are tools"
    tools += [
        {"name": spec.name, "description": spec.description, "form": spec.json_schema}
        for spec in strategy.schema_specs
    ]
    return parts_of(system, request.messages, tools)


def _only(said: AIMessage, names: frozenset[str]) -> AIMessage:
    """An answer ends the decision; look-ups that were asked for beside it are not made."""
    return said.model_copy(
        update={"tool_calls": [call for call in said.tool_calls if call["name"] in names]}
    )


def with_note(messages: list[AnyMessage], problem: str) -> list[AnyMessage]:
    """The messages with a reason at their end, fenced: it may name what the run calls its things.

    It joins a user turn that stands there; some servers want no two of them in a row.
    """
    note = f"Your last answer could not be used:\n{fence(problem)}\nAnswer again, as you were told."
    *before, last = messages
    if isinstance(last, HumanMessage):
        return [*before, HumanMessage(f"{last.content}\n\n{note}")]
    return [*messages, HumanMessage(note)]


def _schema_words(error: Exception) -> str:
    """The first problems of an answer's form, without its values."""
    cause = error if isinstance(error, ValidationError) else error.__cause__
    if not isinstance(cause, ValidationError):
        return clean(str(error), 200)
    problems = cause.errors(include_url=False, include_input=False, include_context=False)[:3]
    return "; ".join(
        f"{'.'.join(clean(str(part), 60) for part in p['loc'])}: {p['msg']}" for p in problems
    )
