"""The agent that asks a language model.

Code detects, the model explains and chooses: it is shown findings, robust statistics and a dense
table, and answers with one action of a closed set, whose figures and bounds are checked before
anybody else sees it. Whatever goes wrong ends as a :class:`~autopilot.schema.NoProposal`.
"""

import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from autopilot.policy import Policy, read_policy
from autopilot.ports import Run
from autopilot.schema import (
    Consultation,
    NoProposal,
    Proposal,
    ProposalRecord,
    Usage,
    Window,
)
from autopilot_agents.llm import explaining
from autopilot_agents.llm.actions import Answer, Wait, answers
from autopilot_agents.llm.checking import Desk
from autopilot_agents.llm.fence import clean, fence
from autopilot_agents.llm.figures import Figures, figures_of
from autopilot_agents.llm.guidance import with_guidance
from autopilot_agents.llm.line import Line, Subject
from autopilot_agents.llm.lookups import LookUps
from autopilot_agents.llm.outcome import Course
from autopilot_agents.llm.patience import Patience
from autopilot_agents.llm.policy_words import plainly_denied
from autopilot_agents.llm.question import Reply
from autopilot_agents.llm.redaction import without_keys
from autopilot_agents.llm.session import recorded_session
from autopilot_agents.llm.settings import Settings
from autopilot_agents.llm.tape import AnsweringTape, Tape
from autopilot_agents.llm.taped_lookups import taped
from autopilot_agents.llm.view import window_text
from autopilot_agents.prompts import load_prompt

DECISION_TOKENS: Final = 10_000
"""That all requests of one decision may take together, by an estimate that is rather too high."""


class LLMAgent:
    """Asks a model for one action, for explanations of proposals, and for the story of a run.

    It may be called from any thread, once at a time. Nothing of a model's stack is loaded before
    it first asks.

    Args:
        settings: The model and the terms on which it is asked.
        run: Where the model's look-ups read; None leaves them what the window holds.
        policy: What may be done to the run: what it plainly denies is not offered, and its limits
            bound the tools. The run judges all the same. None takes the default policy.
        clock: Seconds, for the breaker.
        played: Answers one question instead of a server, as from what was recorded.
        past: A folder of earlier runs, to look up what was done in them; None offers no such look.

    Raises:
        BadInput: There is no key for a server that needs one.
    """

    name = "llm"

    def __init__(
        self,
        settings: Settings,
        run: Run | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
        played: AnsweringTape | None = None,
        past: Path | None = None,
    ) -> None:
        settings.key()
        self.model = settings.model
        self._settings = settings
        self._run = run
        self._policy = policy if policy is not None else read_policy(None)
        self._line = Line(settings, clock)
        self._patience = Patience()
        self._played = played
        self._past = past
        self._prompt = load_prompt("diagnose")
        self.prompt_sha = self._prompt.sha

    def known(self, window: Window) -> NoProposal | None:
        """Why the model is not asked now; None where it is."""
        return _settled(window) or self._patience.still(window) or self._line.obstacle(window)

    def propose(self, window: Window) -> Proposal | NoProposal:
        """One checked proposal, or why there is none; never raises."""
        self._line.latest = None
        known = self.known(window)
        if known is not None:
            return known
        figures = figures_of(window)
        desk = Desk(window, self._policy, figures, self._kinds(window))
        shown = with_guidance(window.run.guidance, fence(window_text(window, self._policy)))
        tape = self._played or Tape(partial(without_keys, settings=self._settings))
        reply = self._ask(desk, shown, tape)
        answer = self._without_keys(_concluded(desk, reply))
        subject = Subject("diagnose", self._prompt, shown, window)
        self._remember(subject, answer, reply, figures, tape)
        if isinstance(answer, NoProposal) and isinstance(reply.answer, Wait):
            self._patience.keep(window, answer, reply.answer.look_again_after_steps)
        return answer

    def review(self, record: ProposalRecord, window: Window) -> Consultation:
        """Explain a proposal to the person who is to decide, with checked figures; never raises."""
        return explaining.review(self._line, self._policy, record, window)

    def report(self, story: Sequence[str], window: Window) -> Consultation:
        """Tell what happened in a run, from the lines of its story; never raises."""
        return explaining.report(self._line, story, window)

    def consultations(self) -> tuple[Consultation, ...]:
        """What the model was asked since the last call, reviews included."""
        return self._line.taken()

    def usage(self) -> Usage | None:
        """What the latest answer took; None where no model was asked for it."""
        return self._line.latest.usage if self._line.latest is not None else None

    @property
    def course(self) -> Course | None:
        """How the latest answer came about; None where no model was asked for it."""
        return self._line.latest.course if self._line.latest is not None else None

    def _without_keys(self, answer: Proposal | NoProposal) -> Proposal | NoProposal:
        """A server that sees the key may say it back."""
        texts = ("rationale", "expected_effect") if isinstance(answer, Proposal) else ("reason",)
        said = {name: without_keys(getattr(answer, name), self._settings) for name in texts}
        return answer.model_copy(update=said)

    def _kinds(self, window: Window) -> frozenset[str]:
        """What the run offers, the policy does not plainly deny, and makes sense now."""
        held = window.run.status in ("paused", "held")
        return frozenset(
            kind
            for kind in window.run.capabilities.interventions
            if not plainly_denied(self._policy, kind) and (held or kind != "resume")
        )

    def _ask(self, desk: Desk, shown: str, tape: Tape) -> Reply[Answer]:
        system = self._prompt.render({"lookups": self._settings.max_lookups})
        offered = answers(desk.kinds, self._policy.limits, desk.window.run.capabilities)
        lookups = LookUps(desk.window, self._policy, desk.figures, self._run, self._past).offered()

        def ask(course: Course) -> Coroutine[Any, Any, Answer]:
            from autopilot_agents.llm import asking  # takes seconds, once, before the deadline runs

            return asking.decide(
                self._settings,
                system,
                shown,
                offered=offered,
                lookups=taped(lookups, tape, desk.figures),
                judge=desk.problem,
                course=course,
                tape=tape,
                most_tokens=DECISION_TOKENS,
            )

        return self._line.ask(ask)

    def _remember(
        self,
        subject: Subject,
        answer: Proposal | NoProposal,
        reply: Reply[Answer],
        figures: Figures,
        tape: Tape,
    ) -> None:
        if isinstance(answer, Proposal):
            outcome, text = "proposal", answer.rationale
        else:
            outcome, text = answer.kind, answer.reason
        wrong = set(figures.unknown(text))
        consultation = self._line.consultation(
            subject,
            outcome,
            text,
            unverified=len(wrong),
            usage=reply.usage,
            session=recorded_session(tape, self._settings, subject.window),
        )
        self._line.remember(consultation)


def _settled(window: Window) -> NoProposal | None:
    """What needs no model to be told; None where one should be asked."""
    episode = window.episode
    if episode is None:
        return NoProposal(kind="benign", reason="nothing is wrong")
    if episode.diagnosis == "benign":
        return NoProposal(kind="benign", reason=clean(episode.reason), episode=episode.id)
    for record in window.history:
        no = record.approval is not None and record.approval.decision == "deny"
        if no and record.proposal.episode == episode.id:
            reason = f"a person denied {record.id} for this episode; it is theirs to act"
            return NoProposal(kind="exhausted", reason=reason, episode=episode.id)
    return None


def _concluded(desk: Desk, reply: Reply[Answer]) -> Proposal | NoProposal:
    if reply.answer is not None:
        return desk.concluded(reply.answer)
    episode = desk.window.episode
    return NoProposal(
        kind=reply.kind or "fault",
        reason=reply.words,
        episode=episode.id if episode is not None else None,
    )
