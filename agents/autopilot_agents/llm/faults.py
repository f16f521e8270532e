"""What an error of a model's server means: try later, call a person, or mistrust the server.

Loads the model's stack; only what asks imports it.
"""

import json

import openai
from langchain_core.exceptions import ModelError

from autopilot.schema import NoProposalKind
from autopilot_agents.llm.outcome import Unanswered


def unanswered(error: Exception) -> Unanswered:
    """What an error of asking a model comes to.

    Everything that may pass by itself is transient, and was tried again by the SDK already; what
    the server will always refuse is fatal; an answer that is none is a fault of protocol.
    """
    if isinstance(error, Unanswered):
        return error
    return Unanswered(_kind(error), _words(error))


def _kind(error: Exception) -> NoProposalKind:
    if getattr(error, "code", None) == "insufficient_quota":
        return "fatal"
    if isinstance(error, openai.UnprocessableEntityError):
        return "protocol"
    if isinstance(error, ModelError):
        return "transient" if error.is_retryable else "fatal"
    if isinstance(error, openai.APIStatusError):
        late = error.status_code in (408, 409, 429) or error.status_code >= 500
        return "transient" if late else "fatal"
    if isinstance(error, openai.APIResponseValidationError):
        return "protocol"
    if isinstance(error, openai.APIConnectionError | TimeoutError | OSError):
        return "transient"
    if isinstance(error, ImportError):
        return "fatal"
    return "protocol"


def _words(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return "no answer in time"
    if isinstance(error, openai.APIConnectionError):
        return "the server cannot be reached"
    if isinstance(error, json.JSONDecodeError):
        return "the server answered something that is not JSON"
    if isinstance(error, IndexError | TypeError | AttributeError | KeyError):
        return "the server's answer has not the form of an answer"
    if status is not None:
        return f"the server answered {status}: {error}"
    return f"{type(error).__name__}: {error}"
