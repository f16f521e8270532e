"""The turns of one question: taped as they happen, or played again from what was taped.

Whoever asks a model tells a tape what it asks and takes from it what is known already, so that the
same code runs in flight and in a replay.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NoReturn, cast, get_args

from autopilot.schema import NoProposalKind
from autopilot.schema.consultations import Asked, Consultation, LookedUp, ModelReply, Session, Turn
from autopilot_agents.llm.outcome import Unanswered

UNREADABLE = "arguments"
"""The fault of a message whose arguments are no object, so that the stack cannot read it."""
_OWN_END = frozenset({"proposal", "benign", "waiting", "cannot_tell", "invalid", "turns_differ"})
"""Outcomes that follow from the turns; any other one cut them short."""
_PARTS = {"system": "the prompt", "tools": "the tools", "messages": "what was shown and said"}


class Unreadable(Exception):
    """A message of a model that was taped as one that cannot be read."""


@dataclass
class Tape:
    """Takes up what is asked, answered and looked up.

    Args:
        hide: Takes keys out of a text.

    Attributes:
        offered: The look-ups that were offered.
    """

    hide: Callable[[str], str] = str
    offered: tuple[str, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    looked_up: list[LookedUp] = field(default_factory=list)

    def ask(self, parts: Mapping[str, str]) -> None:
        """A request is about to be sent.

        Args:
            parts: Texts of its ``system``, ``tools`` and ``messages``.
        """
        self.turns.append(Turn(asked=self._digests(parts)))

    def answer(self, reply: ModelReply) -> None:
        """The request was answered."""
        self._end(reply=reply)

    def fail(self, fault: str, words: str) -> None:
        """The request came to no answer."""
        self._end(fault=fault, words=self.hide(words)[:1000])

    def recall(self, name: str, arguments: str) -> LookedUp | None:
        """What is known of a look-up already; None where it has to be made."""
        return None

    def look(self, looked_up: LookedUp) -> None:
        """Something was looked up."""
        self.looked_up.append(looked_up)

    def _digests(self, parts: Mapping[str, str]) -> Asked:
        return Asked.model_validate(
            {name: sha256(self.hide(text).encode()).hexdigest() for name, text in parts.items()}
        )

    def _end(self, **what: object) -> None:
        if self.turns:
            self.turns[-1] = self.turns[-1].model_copy(update=what)


class AnsweringTape(Tape, ABC):
    """A tape that answers by itself: no server is asked."""

    @abstractmethod
    def next_reply(self) -> ModelReply:
        """The reply to the request that was just made.

        Raises:
            Unanswered: There is none.
            Unreadable: It cannot be read.
        """


@dataclass
class PlayedTape(AnsweringTape):
    """Answers from a recorded question, as long as it is asked the same.

    Args:
        recorded: What came of the question then.
        session: Its turns.
    """

    recorded: Consultation = field(kw_only=True)
    session: Session = field(kw_only=True)
    _to_recall: list[LookedUp] = field(init=False)

    def __post_init__(self) -> None:
        self._to_recall = list(self.session.looked_up)

    def ask(self, parts: Mapping[str, str]) -> None:
        """Hold a request against the one that was recorded.

        Raises:
            Unanswered: They differ, or it was never made.
        """
        number = len(self.turns)
        asked = self._digests(parts)
        if number >= len(self.session.turns):
            self._stopped(f"request {number + 1} was never made")
        before = self.session.turns[number].asked
        changed = [words for part, words in _PARTS.items()
                   if getattr(asked, part) != getattr(before, part)]  # fmt: skip
        if changed:
            differ(f"request {number + 1}: {' and '.join(changed)} changed since it was recorded")
        self.turns.append(Turn(asked=asked))

    def next_reply(self) -> ModelReply:
        """The recorded reply to the request that was just made."""
        turn = self.session.turns[len(self.turns) - 1]
        if turn.reply is not None:
            return turn.reply
        if turn.fault == UNREADABLE:
            raise Unreadable
        if turn.fault is not None:
            raise Unanswered(_kind(turn.fault), turn.words)
        self._stopped(f"request {len(self.turns)} has no recorded answer")

    def recall(self, name: str, arguments: str) -> LookedUp:
        """What was looked up then.

        Raises:
            Unanswered: It was not.
        """
        for number, one in enumerate(self._to_recall):
            if (one.name, one.arguments) == (name, arguments):
                return self._to_recall.pop(number)
        self._stopped(f"the look-up {name} was never made")

    def unplayed(self) -> int:
        """Recorded requests that were not made again."""
        return len(self.session.turns) - len(self.turns)

    def _stopped(self, words: str) -> NoReturn:
        """Where the question was cut short, by a deadline or a fault, it ends as it did then."""
        if self.recorded.outcome in _OWN_END:
            differ(words)
        raise Unanswered(_kind(self.recorded.outcome), self.recorded.text)


def differ(words: str) -> NoReturn:
    """What is asked is not what was recorded.

    Raises:
        Unanswered: Always.
    """
    raise Unanswered("turns_differ", words)


def _kind(outcome: str) -> NoProposalKind:
    return cast(NoProposalKind, outcome) if outcome in get_args(NoProposalKind) else "fault"
