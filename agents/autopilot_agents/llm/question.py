"""One question to a model: put under one deadline, with whatever fails turned into words."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from autopilot.errors import BadInput
from autopilot.schema import NoProposalKind, Usage
from autopilot_agents.llm.background import run_within
from autopilot_agents.llm.fence import clean
from autopilot_agents.llm.outcome import Course, Unanswered
from autopilot_agents.llm.prices import price
from autopilot_agents.llm.redaction import without_keys
from autopilot_agents.llm.settings import Settings

log = logging.getLogger("autopilot.agents.llm")

_GRACE = 5.0
"""Seconds beyond the deadline after which a question is abandoned, whatever still runs."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Reply(Generic[Result]):
    """What came of a question.

    Attributes:
        answer: None where there is none.
        kind: Why there is none.
        words: The same for a person, without keys.
    """

    answer: Result | None
    kind: NoProposalKind | None
    words: str
    course: Course
    usage: Usage


def put(
    settings: Settings, question: Callable[[Course], Coroutine[Any, Any, Result]]
) -> Reply[Result]:
    """Ask, and come back by the deadline; never raises.

    Args:
        settings: The model and its deadline.
        question: Begins the work; it counts into the course it is given.
    """
    course, began = Course(), time.monotonic()
    answer: Result | None = None
    kind: NoProposalKind | None = None
    words = ""
    try:
        answer = run_within(settings.deadline + _GRACE, _in_time(settings, question(course)))
    except Unanswered as error:
        kind, words = error.kind, error.words
    except TimeoutError:
        kind, words = "transient", f"no answer within {settings.deadline:g} s"
    except BadInput as error:
        kind, words = "fatal", str(error)
    except Exception as error:
        kind, words = "fault", f"{type(error).__name__}: {error}"
    words = clean(without_keys(words, settings), 600)
    if kind is not None:
        log.info("%s at %s: %s: %s", settings.model, settings.host, kind, words)
    seconds = time.monotonic() - began
    return Reply(answer, kind, words, course, _usage(settings, course, seconds))


async def _in_time(settings: Settings, work: Coroutine[Any, Any, Result]) -> Result:
    async with asyncio.timeout(settings.deadline):
        return await work


def _usage(settings: Settings, course: Course, seconds: float) -> Usage:
    tokens = course.tokens()
    return Usage(
        calls=course.calls,
        input_tokens=tokens.read,
        cached_tokens=tokens.cached,
        output_tokens=tokens.written,
        price_usd=price(tokens, settings),
        seconds=round(seconds, 3),
    )
