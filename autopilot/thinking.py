"""Asking an agent: at once, or on a thread of its own where it asks a model and takes its time."""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from autopilot.errors import AutopilotError
from autopilot.ports import Agent, Consulting
from autopilot.schema import Consultation, Episode, NoProposal, Proposal, ProposalRecord, Window

log = logging.getLogger("autopilot.pilot")

_AT_ONCE, _MOST = 150_000, 16
"""Characters and number of consultations in one heartbeat; a run bounds what it reads."""


@dataclass(frozen=True)
class Decided:
    """What an agent answered about an episode."""

    episode: Episode
    window: Window
    answer: Proposal | NoProposal


@dataclass(frozen=True)
class Reviewed:
    """What an agent has to say of a proposal that waits for a person."""

    proposal: str
    review: Consultation


Thought = Decided | Reviewed


class Thinking:
    """Asks one question at a time, proposals before reviews.

    Args:
        agent: Who is asked.
        apart: Ask one that consults a model on a thread of its own, so that whoever asks can go on
            looking at the run meanwhile. Otherwise every answer is there at once.
    """

    def __init__(self, agent: Agent, *, apart: bool) -> None:
        self._agent = agent
        self._model = agent if isinstance(agent, Consulting) else None
        self._pool: ThreadPoolExecutor | None = None
        if apart and self._model is not None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="agent")
        self._question: Future[Thought] | None = None
        self._episode: str | None = None
        self._to_review: deque[Callable[[], Thought]] = deque()
        self._asked: deque[Consultation] = deque()

    @property
    def busy(self) -> bool:
        """A question is under way, or its answer has not been taken."""
        return self._question is not None

    @property
    def explains(self) -> bool:
        """The agent has something to say of proposals that wait for a person."""
        return self._model is not None

    @property
    def waiting(self) -> bool:
        """Something will be there to be taken before long."""
        return self.busy or bool(self._to_review)

    def known(self, window: Window) -> Proposal | NoProposal | None:
        """What the agent can say at once, whatever a model is being asked meanwhile."""
        return self._model.known(window) if self._model is not None else None

    def propose(self, episode: Episode, window: Window) -> None:
        """Ask what to do about an episode."""
        self._ask(partial(self._decide, episode, window))

    def review(self, record: ProposalRecord, window: Window) -> None:
        """Ask for an explanation of a proposal, once nothing else is asked."""
        if self._model is not None:
            self._to_review.append(partial(self._explain, self._model, record, window))

    def take(self) -> Thought | None:
        """An answer that is there; None where there is none yet."""
        if self._question is None and self._to_review:
            self._ask(self._to_review.popleft())
        if self._question is None or not self._question.done():
            return None
        thought, self._question = self._question.result(), None
        return thought

    def consultations(self) -> tuple[Consultation, ...]:
        """What models were asked, oldest first: as much as a run takes at once, the rest later."""
        if self._model is not None:
            self._asked.extend(self._model.consultations())
        taken: list[Consultation] = []
        room = _AT_ONCE
        while self._asked and len(taken) < _MOST:
            room -= len(self._asked[0].model_dump_json())
            if taken and room < 0:
                break
            taken.append(self._asked.popleft())
        return tuple(taken)

    def close(self) -> None:
        """Ask nothing more; what is under way is left to end by itself."""
        self._to_review.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, question: Callable[[], Thought]) -> None:
        if self._pool is not None:
            self._question = self._pool.submit(question)
            return
        self._question = Future()
        self._question.set_result(question())

    def _decide(self, episode: Episode, window: Window) -> Thought:
        try:
            return Decided(episode, window, self._agent.propose(window))
        except AutopilotError:
            raise
        except Exception as error:  # an agent's fault never becomes an action
            log.exception("agent %s failed", self._agent.name)
            reason = repr(error)[:300]
            fault = NoProposal(kind="fault", reason=reason, episode=episode.id)
            return Decided(episode, window, fault)

    @staticmethod
    def _explain(model: Consulting, record: ProposalRecord, window: Window) -> Thought:
        return Reviewed(record.id, model.review(record, window))
