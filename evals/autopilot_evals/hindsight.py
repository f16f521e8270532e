"""One past run in hindsight: what was noticed and proposed, held against what happened.

Where nobody said what happened, nothing can have been missed and no alarm can have been false: the
alarms are counted, and that is all.

Time is steps that were trained, at the median time a step of the run's own rows, so that a night in
which the run stood still counts nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median
from typing import Literal

from autopilot.console.words import interventions_words
from autopilot.control import SYSTEM
from autopilot.guard import changes_course
from autopilot.policy import Policy
from autopilot.ports import Agent
from autopilot.recording import Playback, RecordedRun
from autopilot.schema import Episode, Event, Finding, ProposalRecord, Rollback
from autopilot.supported import find_checkpoint
from autopilot_evals.baselines.reference import always_alarms
from autopilot_evals.labels import LabelledEvent
from autopilot_evals.past_runs import PastRun
from autopilot_evals.replay import Decision, ReplayReport, replay
from autopilot_evals.scoring.decisions import Sets, answer_of, canonical
from autopilot_evals.scoring.matching import Alarm, Matching, match

Judgement = Literal["unknown", "healthy", "acceptable", "neutral", "harmful", "unjudged"]
"""``unknown``: nobody said what happened in the run. ``healthy``: nothing was the matter there.
``unjudged``: something was, and its label does not say what to make of this answer."""

Until = Literal["the damage ends", "a person acts", "the run ends"]


@dataclass(frozen=True)
class Lead:
    """How long before something else a proposal was there, in steps trained."""

    steps: int
    until: Until


@dataclass(frozen=True)
class Judged:
    """A proposal, and what hindsight makes of it.

    Attributes:
        row: The row after which it was made, from 0.
        what: The interventions with their values; ``answer`` is the one word of its kind.
        acts: It would have changed the course of training.
        hypothetical: An earlier one would have been applied; the run would not have come here.
        event: Kind of what was the matter there.
        back_steps: Steps that it goes back, and that would be trained again.
        gained_steps: Steps of sick training that it spares, less those it repeats; negative where
            it only costs. None where that cannot be said.
    """

    row: int
    step: int
    what: str
    answer: str
    verdict: Literal["allow", "ask", "deny"]
    acts: bool
    hypothetical: bool
    judgement: Judgement
    event: str | None
    back_steps: int
    gained_steps: int | None

    @property
    def by_itself(self) -> bool:
        """It would have been done without anybody being asked, in the run as it was recorded."""
        return self.acts and self.verdict == "allow" and not self.hypothetical


@dataclass(frozen=True)
class Missed:
    """An event of damage on which no alarm was raised.

    Attributes:
        watched: People would have been told; it passed before an agent was to be asked.
    """

    kind: str
    onset: int
    watched: bool


@dataclass(frozen=True)
class Hindsight:
    """What came of one run.

    Attributes:
        known: Where what happened is known from.
        steps: Steps trained, repeated ones too.
        alarms: Episodes that opened and were not benign, by the row that opened them.
        found: Events of damage on which an alarm was raised; None where nothing is known.
        false: Alarms where nothing was the matter; None where nothing is known.
        healthy_rows: Rows on which an alarm would have been false.
        acted_rows: Those up to the first proposal that would have been applied: rows on which an
            action would have been unasked for.
        seconds_per_step: None where rows carry no times.
    """

    name: str
    known: Literal["labels", "declared healthy", "nothing"]
    rows: int
    steps: int
    alarms: tuple[Alarm, ...]
    found: int | None
    missed: tuple[Missed, ...] | None
    false: tuple[Alarm, ...] | None
    healthy_rows: int
    healthy_steps: int
    acted_rows: int
    proposals: tuple[Judged, ...]
    lead: Lead | None
    seconds_per_step: float | None
    remarks: tuple[str, ...]

    @property
    def first(self) -> Judged | None:
        """The first proposal that acts; else the first at all."""
        return next((p for p in self.proposals if p.acts), next(iter(self.proposals), None))

    @property
    def saved_steps(self) -> int:
        """Steps of sick training spared."""
        return sum(max(p.gained_steps or 0, 0) for p in self.proposals)

    @property
    def wasted_steps(self) -> int:
        """Steps trained again for nothing, or beyond the damage that was left."""
        return sum(max(-(p.gained_steps or 0), 0) for p in self.proposals)


def look_back(run: PastRun, agent: Agent, policy: Policy) -> Hindsight:
    """Replay a run to an agent, and hold what came of it against what happened.

    Raises:
        BadInput: The recording cannot be read.
    """
    recorded = run.open()
    course, notes = _read_course(recorded), _Notes()
    report = replay(recorded, agent, policy, watch=notes.watch)
    truth = None if run.labels is None else _Truth(course, run.labels.episodes)
    proposals = _judge(report, truth, notes.targets)
    known: Literal["labels", "declared healthy", "nothing"] = "labels"
    if truth is None or run.declared:
        known = "nothing" if truth is None else "declared healthy"
    matching = None if truth is None else truth.match(notes.opened)
    return Hindsight(
        name=run.name,
        known=known,
        rows=len(course.steps),
        steps=course.trained[-1] if course.trained else 0,
        alarms=tuple(notes.opened),
        found=None if matching is None else sum(f.alarm is not None for f in matching.found),
        missed=None if truth is None else truth.missed(notes),
        false=None if matching is None else matching.false,
        healthy_rows=0 if matching is None else matching.healthy_rows,
        healthy_steps=0 if matching is None else matching.healthy_steps,
        acted_rows=0 if truth is None else truth.healthy_until(_first_action(proposals)),
        proposals=proposals,
        lead=_lead(report, proposals, course, truth),
        seconds_per_step=course.seconds_per_step,
        remarks=report.remarks,
    )


@dataclass(frozen=True)
class _Course:
    """The steps of a run's rows.

    Attributes:
        trained: Steps trained up to each row, repeated ones too.
    """

    steps: tuple[int, ...]
    trained: tuple[int, ...]
    seconds_per_step: float | None

    def between(self, row: int, end_step: int) -> int:
        """Steps trained from a row to the last one that had not come past a step."""
        last, highest = row, self.steps[row]
        for at in range(row, len(self.steps)):
            highest = max(highest, self.steps[at])
            if highest > end_step:
                break
            last = at
        return self.trained[last] - self.trained[row]


def _read_course(recorded: RecordedRun) -> _Course:
    steps, times = [], []
    for row in recorded.rows():
        steps.append(row.step)
        times.append(row.time)
    gone = [max(after - before, 0) for before, after in pairwise(steps)]
    paces = [
        (after - before) / made
        for made, (before, after) in zip(gone, pairwise(times), strict=True)
        if made and before > 0.0 and after > before
    ]
    trained = accumulate(gone, initial=0) if steps else ()
    return _Course(tuple(steps), tuple(trained), median(paces) if paces else None)


class _Notes:
    """Listens to a replay: alarms by the row that raised them, and where rollbacks would go."""

    def __init__(self) -> None:
        self.opened: list[Alarm] = []
        self.told: list[Alarm] = []
        self.targets: list[int | None] = []
        self._open: dict[str, str] = {}
        self._kinds: set[tuple[str, str]] = set()

    def watch(self, playback: Playback, events: Sequence[Event]) -> None:
        row = playback.rows_read - 1
        for event in events:
            if event.kind == "finding" and event.actor == SYSTEM:
                self._hear(Finding.model_validate(event.body["finding"]), row, event.step)
            elif event.kind == "episode":
                self._consider(Episode.model_validate(event.body["episode"]), row, event.step)
        for judged in playback.judged[len(self.targets) :]:
            self.targets.append(_target(judged.record, playback))

    def _hear(self, finding: Finding, row: int, step: int) -> None:
        if finding.episode is None or finding.tier == "watch":
            return
        shown = (finding.episode, finding.kind)
        if shown not in self._kinds:
            self._kinds.add(shown)
            self.told.append(Alarm(row, step, finding.kind))

    def _consider(self, episode: Episode, row: int, step: int) -> None:
        called = episode.status == "open" and (episode.alarm or episode.invariant_broken)
        if not called or episode.diagnosis == "benign":
            self._open.pop(episode.id, None)
        elif self._open.get(episode.id) != episode.kind:
            self._open[episode.id] = episode.kind
            self.opened.append(Alarm(row, step, episode.kind))


def _target(record: ProposalRecord, playback: Playback) -> int | None:
    """The step that a proposal goes back to."""
    for one in record.proposal.interventions:
        if isinstance(one, Rollback):
            found = find_checkpoint(one.checkpoint, playback.run.checkpoints())
            return None if found is None else found.step
    return None


class _Truth:
    """What really happened in a run, and what that makes of a row."""

    def __init__(self, course: _Course, events: Sequence[LabelledEvent]) -> None:
        self._course = course
        self._events = sorted(
            (event for event in events if event.kind != "healthy"), key=lambda e: e.onset
        )
        everywhere = match(course.steps, self._events, always_alarms(course.steps))
        self._healthy = frozenset(alarm.row for alarm in everywhere.false)

    def match(self, alarms: Sequence[Alarm]) -> Matching:
        return match(self._course.steps, self._events, alarms)

    def missed(self, notes: _Notes) -> tuple[Missed, ...]:
        told = {id(f.event) for f in self.match(notes.told).found if f.alarm is not None}
        return tuple(
            Missed(one.event.row_name, one.event.onset, id(one.event) in told)
            for one in self.match(notes.opened).found
            if one.alarm is None
        )

    def healthy_until(self, row: int | None) -> int:
        """Healthy rows up to that one; all where there is none."""
        return sum(row is None or healthy <= row for healthy in self._healthy)

    def event_at(self, row: int) -> LabelledEvent | None:
        """What was the matter there: what an alarm there finds, or the last that had begun."""
        if row in self._healthy:
            return None
        step = self._course.steps[row]
        one = self.match([Alarm(row, step)])
        hit = next((f.event for f in (*one.found, *one.others) if f.alarm is not None), None)
        begun = [event for event in self._events if event.onset <= step]
        return hit or (begun[-1] if begun else self._events[0])

    def left(self, row: int, event: LabelledEvent) -> int:
        """Steps of it that were still trained after a row."""
        return self._course.between(row, event.end)


def _judge(
    report: ReplayReport, truth: _Truth | None, targets: Sequence[int | None]
) -> tuple[Judged, ...]:
    treated: set[tuple[str, int]] = set()
    found = []
    for decision, target in zip(report.decisions, targets, strict=True):
        back = 0 if target is None else max(decision.step - target, 0)
        event = None if truth is None else truth.event_at(decision.rows - 1)
        judgement = _judgement(decision, event, truth)
        gained = None
        if truth is not None and decision.acts and not decision.hypothetical:
            gained = _gained(decision, judgement, event, truth, back, treated)
        found.append(
            Judged(
                row=decision.rows - 1,
                step=decision.step,
                what=interventions_words(decision.proposal.interventions),
                answer=answer_of(decision.proposal),
                verdict=decision.verdict.decision,
                acts=decision.acts,
                hypothetical=decision.hypothetical,
                judgement=judgement,
                event=None if event is None else event.row_name,
                back_steps=back,
                gained_steps=gained,
            )
        )
    return tuple(found)


def _judgement(decision: Decision, event: LabelledEvent | None, truth: _Truth | None) -> Judgement:
    if truth is None:
        return "unknown"
    if event is None:
        return "healthy"
    named = (event.acceptable, event.neutral, event.harmful)
    sets = Sets(*(frozenset(map(_one_word, answers)) for answers in named))
    grade = sets.grade(answer_of(decision.proposal))
    return "unjudged" if grade == "unlisted" else grade


def _one_word(answer: str) -> str:
    return canonical({kind.strip() for kind in answer.split("+")})


def _gained(
    decision: Decision,
    judgement: Judgement,
    event: LabelledEvent | None,
    truth: _Truth,
    back: int,
    treated: set[tuple[str, int]],
) -> int | None:
    """What it is worth: the rest of the damage where it may help, less what it repeats."""
    if decision.verdict.decision == "deny":
        return None
    if event is None or judgement in ("harmful", "neutral"):
        return -back if decision.verdict.decision == "allow" else None
    key = (event.kind, event.onset)
    if not event.loss_affecting or key in treated:
        return None
    treated.add(key)
    return truth.left(decision.rows - 1, event) - back


def _first_action(proposals: Sequence[Judged]) -> int | None:
    return next((one.row for one in proposals if one.by_itself), None)


def _lead(
    report: ReplayReport, proposals: Sequence[Judged], course: _Course, truth: _Truth | None
) -> Lead | None:
    """How far ahead the first proposal that acts was; None where there was nothing to lead."""
    first = next((one for one in proposals if one.acts), None)
    if first is None:
        return None
    if truth is not None:
        event = truth.event_at(first.row)
        if event is None or not event.loss_affecting:
            return None
        return Lead(truth.left(first.row, event), "the damage ends")
    by_people = [
        one.record.filed_step
        for one in report.applied
        if one.record.actor.startswith("human:")
        and changes_course(one.record.proposal.interventions)
        and one.record.filed_step >= first.step
    ]
    if by_people:
        return Lead(by_people[0] - first.step, "a person acts")
    return Lead(course.trained[-1] - course.trained[first.row], "the run ends")
