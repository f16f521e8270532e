"""The decisions of a recorded run, made again from the turns that its journal holds.

No server is asked and no key is needed. Prompt, tools, checks and bounds are those of today; where
they would ask a model something else than what was recorded, no decision is made and that is said.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autopilot.errors import BadInput, BadPolicy
from autopilot.policy import Policy, parse_policy, read_policy
from autopilot.schema import Consultation, Event, NoProposal, Proposal, RunInfo, Window
from autopilot.schema.consultations import Session
from autopilot_agents.llm.agent import LLMAgent
from autopilot_agents.llm.figures import figures_of
from autopilot_agents.llm.outcome import Unanswered
from autopilot_agents.llm.session import window_of
from autopilot_agents.llm.settings import Settings
from autopilot_agents.llm.tape import PlayedTape, differ

_NOWHERE = "http://127.0.0.1:9/v1"


@dataclass(frozen=True)
class _Recorded:
    """A question of the recorded run.

    Attributes:
        window: What its model was shown; None where that is not recorded.
        policy: Of the run, as it was then.
    """

    asked: Consultation
    session: Session | None
    window: Window | None
    policy: Policy

    @property
    def due(self) -> int:
        """The step after which all that it shows had been recorded."""
        if self.window is None:
            return 0
        shown = [row.last_step for row in self.window.table]
        shown += [cited.step for found in self.window.findings for cited in found.evidence]
        return max((self.window.run.step, *shown))


class PlayedAgent:
    """Answers each episode as the recorded run's model did, question by question.

    Args:
        events: The journal of the recorded run.

    Raises:
        BadInput: It holds no question that a model was asked for a decision.
    """

    name = "llm"

    def __init__(self, events: Iterable[Event]) -> None:
        self._left: dict[str, deque[_Recorded]] = {}
        self.policy = read_policy(None)
        for event in events:
            if event.kind == "run_started":
                self.policy = _policy(event)
            elif event.kind == "consultation":
                self._take(Consultation.model_validate(event.body["consultation"]))
        if not self._left:
            raise BadInput(
                "--turns recorded: the journal holds no decision that a language model was asked "
                "for; fly the run with --agent llm or rules+llm, or leave --turns out"
            )

    def _take(self, asked: Consultation) -> None:
        if asked.purpose != "diagnose" or asked.episode is None:
            return
        window = window_of(asked.session) if asked.session is not None else None
        recorded = _Recorded(asked, asked.session, window, self.policy)
        self._left.setdefault(asked.episode, deque()).append(recorded)

    def due(self, run: RunInfo) -> int | None:
        """The next step on this branch after which something was asked; None where none was."""
        nexts = (left[0] for left in self._left.values() if left)
        steps = [one.due for one in nexts if one.window and one.window.run.branch == run.branch]
        return min(steps, default=None)

    def unplayed(self) -> list[str]:
        """Every recorded question that was not come to, in words."""
        return [
            f"{one.asked.episode}, asked at step {one.due}: {one.asked.outcome}"
            for left in self._left.values()
            for one in left
        ]

    def propose(self, window: Window) -> Proposal | NoProposal:
        """What came of the next recorded question about the episode; never raises."""
        episode = window.episode
        left = self._left.get(episode.id) if episode is not None else None
        own = episode.id if episode is not None else None
        if not left:
            reason = "the recorded run asked its model nothing more about this episode"
            return NoProposal(kind="waiting", reason=reason, episode=own)
        recorded, here = left[0], window.run
        if recorded.window is not None and (
            recorded.window.run.branch != here.branch or here.step < recorded.due
        ):
            where = f"step {recorded.due} of branch {recorded.window.run.branch}"
            reason = f"the recorded run asked its model at {where}"
            return NoProposal(kind="waiting", reason=reason, episode=own)
        left.popleft()
        try:
            return _played(recorded, window)
        except Unanswered as error:
            return NoProposal(kind=error.kind, reason=error.words, episode=own)


def _played(recorded: _Recorded, here: Window) -> Proposal | NoProposal:
    """The decision, made again on the window that was shown then.

    Raises:
        Unanswered: It is not recorded whole, or what is asked or recorded is something else.
    """
    session, shown = recorded.session, recorded.window
    if session is None or shown is None:
        why = session.left_out if session is not None else ""
        differ(f"its turns are not recorded: {why or 'the journal is of another version'}")
    _hold_against(shown, here)
    tape = PlayedTape(recorded=recorded.asked, session=session)
    past = Path() if "similar" in session.lookups else None  # offered; what it told is on the tape
    terms = _terms(recorded.asked.model, session)
    agent = LLMAgent(terms, policy=recorded.policy, played=tape, past=past)
    answer = agent.propose(shown)
    if tape.unplayed() and not (isinstance(answer, NoProposal) and answer.kind == "turns_differ"):
        differ(f"{tape.unplayed()} of {len(session.turns)} recorded requests were not made again")
    return answer


def _hold_against(shown: Window, here: Window) -> None:
    """The figures that a model was shown must be those of the rows that are replayed.

    Raises:
        Unanswered: One is another.
    """
    recorded = figures_of(here)
    for cited in figures_of(shown).since(0):
        found = recorded.recorded(cited.metric, cited.step)
        if found is not None and repr(found) != repr(cited.value):
            differ(
                f"the window: the model was shown {cited.metric}@{cited.step}={cited.value:g}, "
                f"the recording has {found:g}"
            )


def _terms(model: str, session: Session) -> Settings:
    """Settings that depend on nothing but the recording."""
    return Settings(
        model=model, base_url=_NOWHERE, api_key=None, timeout=30, deadline=90,
        max_lookups=session.max_lookups, max_output=4096, price_in=0, price_out=0, past=None,
    )  # fmt: skip


def _policy(started: Event) -> Policy:
    text = str(started.body.get("policy", ""))
    try:
        return parse_policy(text) if text else read_policy(None)
    except BadPolicy as error:
        raise BadInput(f"--turns recorded: the policy in the journal: {error}") from error
