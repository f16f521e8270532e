"""Decisions against what experts would accept: agreement, and above all harm.

An agent that never acts agrees wherever nothing should be done, and one that always acts wherever
something should. So agreement is taken apart by that, and ``balanced`` is the mean of both halves:
either habit gets a half at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

from autopilot.schema import Intervention, NoProposal, Proposal, Usage
from autopilot_evals.scoring.intervals import clustered
from autopilot_evals.scoring.usage import total

Grade = Literal["acceptable", "neutral", "harmful", "unlisted"]

_BESIDE = frozenset({"rewarm_lr", "evaluate", "save_checkpoint", "note"})
"""Interventions that accompany others without changing what is done."""


def answer_of(answer: Proposal | NoProposal) -> str:
    """What was decided, as one word a kind: ``rollback+scale_lr``, ``nothing``, ``ask``.

    A going back that leaves data out is ``rollback+skip_batches``, a rate that is raised is
    ``raise_lr``. Declining because it cannot tell, or has tried everything, hands it to a person.

    >>> answer_of(NoProposal(kind="cannot_tell", reason="no gradient norm"))
    'ask'
    """
    if isinstance(answer, NoProposal):
        match answer.kind:
            case "benign" | "waiting":
                return "nothing"
            case "cannot_tell" | "exhausted" | "unsupported":
                return "ask"
            case (
                "fault" | "transient" | "fatal" | "protocol" | "invalid" | "refused" | "budget"
                | "turns_differ"
            ):  # fmt: skip
                return "fault"
    return word_of({kind for i in answer.interventions for kind in _kinds(i)})


def word_of(kinds: set[str]) -> str:
    """What is done, as one word, without what only accompanies it.

    >>> word_of({"rollback", "rewarm_lr"}), word_of({"evaluate"})
    ('rollback', 'evaluate')
    """
    return canonical(kinds - _BESIDE or kinds)


def canonical(kinds: set[str]) -> str:
    """Kinds as one word, in one order."""
    return "+".join(sorted(kinds))


def _kinds(intervention: Intervention) -> list[str]:
    if intervention.kind == "rollback" and intervention.skip_batches:
        return ["rollback", "skip_batches"]
    if intervention.kind == "scale_lr" and intervention.factor > 1.0:
        return ["raise_lr"]
    return [intervention.kind]


@dataclass(frozen=True)
class Sets:
    """What experts would make of each answer, as words of :func:`answer_of`."""

    acceptable: frozenset[str]
    neutral: frozenset[str]
    harmful: frozenset[str]

    @property
    def calls_for_action(self) -> bool:
        """Whether doing nothing would not do."""
        return "nothing" not in self.acceptable

    def grade(self, answer: str) -> Grade:
        """Where the answer stands. What contains something harmful is harmful, unless listed."""
        if answer in self.acceptable:
            return "acceptable"
        if answer in self.neutral:
            return "neutral"
        kinds = set(answer.split("+"))
        if any(kinds.issuperset(harm.split("+")) for harm in self.harmful):
            return "harmful"
        return "unlisted"


@dataclass(frozen=True)
class Decided:
    """One decision of one agent.

    Attributes:
        cluster: The training it comes from: its decisions resemble each other.
        invented: Figures cited that the window does not hold.
        usage: What the agent's models took for the answer; None where none was asked.
    """

    decision: int
    cluster: str
    answer: str
    grade: Grade
    called_for_action: bool
    seen: bool
    invented: int = 0
    usage: Usage | None = None


@dataclass(frozen=True)
class DecisionLine:
    """One agent over many decisions.

    Attributes:
        agreement: Share of acceptable answers, with Wilson's interval clustered by training.
        where_to_act: The same where doing nothing would not do.
        where_to_hold: The same where doing nothing is right.
        balanced: The mean of the two.
        harm: Share of harmful answers, with its interval.
        harm_where_to_hold: Share of harmful answers where doing nothing is right.
        no_op_unseen: Share left alone of those in which the run's figures show nothing.
        invented: Figures cited that do not exist.
        spent: What all answers took together; None where no model was asked.
    """

    agent: str
    decisions: int
    agreement: float
    agreement_95: tuple[float, float]
    where_to_act: float
    where_to_hold: float
    balanced: float
    harm: float
    harm_95: tuple[float, float]
    harm_where_to_hold: float
    no_op_unseen: float
    invented: int
    spent: Usage | None = None


def decision_line(agent: str, decided: Sequence[Decided]) -> DecisionLine:
    """Sum up an agent's decisions."""
    agree = clustered([(one.cluster, one.grade == "acceptable") for one in decided])
    harm = clustered([(one.cluster, one.grade == "harmful") for one in decided])
    act = [one for one in decided if one.called_for_action]
    hold = [one for one in decided if not one.called_for_action]
    to_act, to_hold = _share(act, "acceptable"), _share(hold, "acceptable")
    unseen = [one for one in decided if not one.seen]
    left = sum(one.answer in ("nothing", "ask") for one in unseen)
    return DecisionLine(
        agent=agent,
        decisions=len(decided),
        agreement=agree.share,
        agreement_95=(agree.low, agree.high),
        where_to_act=to_act,
        where_to_hold=to_hold,
        balanced=(to_act + to_hold) / 2.0,
        harm=harm.share,
        harm_95=(harm.low, harm.high),
        harm_where_to_hold=_share(hold, "harmful"),
        no_op_unseen=left / len(unseen) if unseen else nan,
        invented=sum(one.invented for one in decided),
        spent=total(one.usage for one in decided),
    )


def _share(decided: Sequence[Decided], grade: Grade) -> float:
    return sum(one.grade == grade for one in decided) / len(decided) if decided else nan
