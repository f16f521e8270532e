"""The line to a model: whether it may be asked now, asking, and the record of what was asked."""

import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from autopilot.schema import Consultation, NoProposal, NoProposalKind, Usage, Window
from autopilot.schema.consultations import Purpose, Session
from autopilot_agents.llm.breaker import Breaker
from autopilot_agents.llm.fence import clean
from autopilot_agents.llm.outcome import Course
from autopilot_agents.llm.prices import Tokens, is_free, price
from autopilot_agents.llm.question import Reply, put
from autopilot_agents.llm.redaction import without_keys
from autopilot_agents.llm.settings import Settings
from autopilot_agents.prompts import Prompt

Result = TypeVar("Result")


@dataclass(frozen=True)
class Subject:
    """What a question is about.

    Attributes:
        shown: What the model reads of the run, fenced.
        proposal: Of a review, the id of the proposal.
    """

    purpose: Purpose
    prompt: Prompt
    shown: str
    window: Window
    proposal: str | None = None


class Line:
    """Asks one model, within money and patience, and remembers what it asked.

    Args:
        settings: The model and its terms.
        clock: Seconds, for the breaker.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.latest: Reply[Any] | None = None
        self._clock = clock
        self._breaker = Breaker()
        self._lock = threading.Lock()
        self._asked: list[Consultation] = []

    def obstacle(self, window: Window) -> NoProposal | None:
        """Why the model is not asked now; None where nothing is in the way."""
        found = self._money(window) or self._rest()
        if found is None:
            return None
        kind, reason = found
        episode = window.episode.id if window.episode is not None else None
        return NoProposal(kind=kind, reason=reason, episode=episode)

    def _money(self, window: Window) -> tuple[NoProposalKind, str] | None:
        if price(Tokens(), self.settings) is None:
            return "budget", (
                f"the price of {clean(self.settings.model, 80)} is unknown: set "
                "AUTOPILOT_LLM_PRICE_IN and AUTOPILOT_LLM_PRICE_OUT, in dollars for a million "
                "tokens (0 for a model of your own)"
            )
        run = window.run
        if run.llm_usd_spent >= run.llm_usd_per_day and not is_free(self.settings):
            return "budget", (
                f"${run.llm_usd_spent:.2f} of the ${run.llm_usd_per_day:.2f} that the policy "
                "allows a day for language models are spent"
            )
        return None

    def _rest(self) -> tuple[NoProposalKind, str] | None:
        if self._breaker.lets_through(self._clock()):
            return None
        assert self._breaker.cause is not None, "it opens for a cause"
        model = clean(self.settings.model, 80)
        return self._breaker.cause, f"{model} is left alone for a while: {self._breaker.why}"

    def ask(self, question: Callable[[Course], Coroutine[Any, Any, Result]]) -> Reply[Result]:
        """Put a question; never raises."""
        reply = put(self.settings, question)
        self.latest = reply
        self._breaker = self._breaker.after(reply.kind, reply.words, now=self._clock())
        return reply

    def consultation(
        self,
        subject: Subject,
        outcome: str,
        text: str,
        *,
        unverified: int = 0,
        usage: Usage,
        session: Session | None = None,
    ) -> Consultation:
        """The record of a question."""
        episode = subject.window.episode
        return Consultation(
            purpose=subject.purpose,
            model=self.settings.model,
            host=self.settings.host[:300],
            prompt=subject.prompt.label,
            prompt_sha=subject.prompt.sha,
            window_sha=sha256(subject.shown.encode()).hexdigest(),
            episode=episode.id[:100] if episode is not None else None,
            proposal=subject.proposal,
            outcome=outcome,
            text=without_keys(text, self.settings)[:4000],
            unverified=unverified,
            usage=usage,
            session=session,
        )

    def remember(self, asked: Consultation) -> Consultation:
        """Keep a record until it is taken."""
        with self._lock:
            self._asked.append(asked)
        return asked

    def taken(self) -> tuple[Consultation, ...]:
        """What was remembered since the last call."""
        with self._lock:
            asked, self._asked = self._asked, []
        return tuple(asked)
