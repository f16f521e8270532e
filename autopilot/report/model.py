"""The report itself: what is told of a run, before it is put into words."""

from typing import Literal

from autopilot.schema import Episode, NoProposal, Number, ProposalRecord, Record, RunStatus

Standing = Literal["healthy", "rescued", "needs_you"]
"""Nothing for anybody to do; something was the matter and was mended; a person is needed."""


class State(Record):
    """Where the run stands.

    Attributes:
        status: ``lost`` where its process is gone and no end was journaled.
        live: Its process answers.
        trained: Steps made in the time reported on, those that were gone back from included.
        seconds: The time in which they were made.
        remaining_seconds: Until the last step at that pace; None where it is not known.
    """

    status: RunStatus | Literal["lost"]
    reason: str
    live: bool
    step: int
    steps: int | None
    branch: str
    trained: int
    seconds: float
    remaining_seconds: float | None
    autonomy: str | None
    policy_digest: str | None
    pilot: str | None
    breaker_open: bool


class CoursePoint(Record):
    """One or more rows on end: their lowest and highest value.

    Attributes:
        step: Of the first of them.
        low: None where no value of them is finite.
        finite: Every value of them is.
    """

    step: int
    low: float | None
    high: float | None
    finite: bool


class Mark(Record):
    """An intervention in a course, by the point after which it was applied."""

    point: int
    label: str


class Course(Record):
    """How a metric went, in the order in which steps were made: going back is seen as it was."""

    metric: str
    points: tuple[CoursePoint, ...]
    marks: tuple[Mark, ...]
    first: Number
    last: Number


class Effect(Record):
    """A metric on both sides of an intervention.

    Attributes:
        before: Median of the 50 rows before it was applied; None where none was finite.
        after: What the canary measured, the median over the last fifth of its steps; None while
            it runs, or where it was never seen.
        bound: What the canary does not let pass.
    """

    metric: str
    before: float | None
    after: float | None
    bound: float | None


class Action(Record):
    """An intervention that was applied."""

    at: float
    record: ProposalRecord
    effect: Effect


class Wish(Record):
    """A proposal that was never applied, and why."""

    record: ProposalRecord
    why: str


class Sickness(Record):
    """An episode and what came of it.

    Attributes:
        remedies: Ids of the proposals that answered it, applied or not.
        said: The last reason why an agent did not propose anything.
        open_question: It goes on, or left damage, and nothing was applied or waits against it.
    """

    episode: Episode
    remedies: tuple[str, ...]
    outcome: str
    said: NoProposal | None
    open_question: bool


class Matter(Record):
    """Something that waits for a person.

    Attributes:
        command: What to type after ``autopilot``; None where no command settles it.
    """

    what: str
    command: str | None = None


class Going(Record):
    """One going back: steps that were made and are no part of the run any more."""

    at: float
    branch: str
    parent: str
    from_step: int
    to_step: int

    @property
    def lost(self) -> int:
        """Steps."""
        return max(self.from_step - self.to_step, 0)


class Fault(Record):
    """Something of ours that failed."""

    at: float | None
    text: str


class ModelCost(Record):
    """What one language model was asked, and what that took.

    Attributes:
        usd: As far as prices are known.
        unpriced: Questions whose price nobody knows.
    """

    model: str
    questions: int
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float
    unpriced: int


class Report(Record):
    """What happened to a run in a time.

    Attributes:
        place: How the reader named the run: a directory or a URL.
        since: Beginning of the time reported on, in seconds since the epoch.
        until: Its end.
        headline: The verdict in one line.
        done: Interventions, oldest first.
        wanted: Proposals that came to nothing, oldest first.
        waiting: What a person has to see to, first things first.
        reflexes: How often which reflex acted in the step itself.
        lost: Steps lost to going back.
        remarks: What the report could not see.
    """

    name: str
    run_id: str
    place: str
    since: float
    until: float
    standing: Standing
    headline: str
    state: State
    course: Course | None
    episodes: tuple[Sickness, ...]
    done: tuple[Action, ...]
    wanted: tuple[Wish, ...]
    waiting: tuple[Matter, ...]
    faults: tuple[Fault, ...]
    reflexes: dict[str, int]
    cost: tuple[ModelCost, ...]
    goings: tuple[Going, ...]
    lost: int
    remarks: tuple[str, ...]
