"""How asking a model went: what it took, and why there is no answer where there is none."""

from dataclasses import dataclass, field
from uuid import UUID

from autopilot.schema import NoProposalKind
from autopilot_agents.llm.prices import Tokens


class Unanswered(Exception):
    """A question came to no answer.

    Attributes:
        kind: Which kind of :class:`~autopilot.schema.NoProposal` it is.
        words: Why, for a person.
    """

    def __init__(self, kind: NoProposalKind, words: str) -> None:
        super().__init__(words)
        self.kind: NoProposalKind = kind
        self.words = words


@dataclass
class Course:
    """What a question took so far; it can be read while, and after, anything hangs.

    Attributes:
        calls: Turns of the model.
        lookups: Look-ups made for it.
        repairs: Turns that were sent back.
        under_way: Tokens read by turns that have not come to an end.
    """

    calls: int = 0
    lookups: int = 0
    repairs: int = 0
    read: int = 0
    cached: int = 0
    written: int = 0
    under_way: dict[UUID, int] = field(default_factory=dict)

    def tokens(self) -> Tokens:
        """All so far; a turn that never came to an end counts as read."""
        return Tokens(self.read + sum(self.under_way.values()), self.cached, self.written)
