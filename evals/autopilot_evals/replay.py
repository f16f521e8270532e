"""Replaying a recording: what a pilot would have seen, proposed, and been allowed."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from autopilot.control import SYSTEM
from autopilot.guard import changes_course
from autopilot.loop import RETRY_STEPS, Autopilot
from autopilot.policy import Policy, read_policy
from autopilot.ports import Agent, Run
from autopilot.recording import Judged, Playback, RecordedRun
from autopilot.recording.recording import ALWAYS
from autopilot.recording.side import SNAPSHOT_STEPS
from autopilot.schema import (
    Episode,
    Event,
    Finding,
    MetricSummary,
    NoProposal,
    Proposal,
    ProposalRecord,
    Record,
    RunInfo,
    Verdict,
    Window,
)
from autopilot_agents.rules import ObserveAgent

Watch = Callable[[Playback, Sequence[Event]], None]
"""Told of the events that are new, after each that the pilot looked at."""
Due = Callable[[RunInfo], int | None]
"""The next step of a branch at which an agent has something to say; None where it has not."""


class Seen(Record):
    """What the agent was shown when it decided, in short.

    Attributes:
        last_step: The newest row's step in its table: never beyond the step of the decision.
        summaries: Robust statistics of every metric.
    """

    last_step: int
    findings: int
    checkpoints: int
    tried: int
    summaries: tuple[MetricSummary, ...]


class Decision(Record):
    """One proposal of the replayed agent, and what the guard said of it.

    Attributes:
        rows: Rows of the recording that had been read.
        acts: It would have changed the course of the run.
        hypothetical: An earlier one of this replay was accepted, so the run would not have come
            here as it was recorded; it is told, and must not be scored.
    """

    step: int
    branch: str
    rows: int
    episode: Episode | None
    seen: Seen
    proposal: Proposal
    verdict: Verdict
    acts: bool
    hypothetical: bool


class Silence(Record):
    """The agent was asked about an episode and proposed nothing."""

    step: int
    branch: str
    no_proposal: NoProposal


class Applied(Record):
    """An intervention that the recorded run did apply: a fact of the recording."""

    step: int
    branch: str
    record: ProposalRecord


class ReplayReport(Record):
    """What came of a replay; the same recording, agent and policy give the same report.

    Attributes:
        rows: Rows read: all of the recording.
        step: The last row's step.
        first_accepted: Which of ``decisions`` was the first that would have changed the run
            without anybody being asked. From there on the recorded future is no longer what would
            have happened.
        as_live: Whether the findings are those that the recorded run's own journal holds; None
            where it holds none of its own.
    """

    name: str
    run_id: str
    agent: str
    policy_digest: str
    rows: int
    step: int
    branch: str
    findings: tuple[Finding, ...]
    episodes: tuple[Episode, ...]
    decisions: tuple[Decision, ...]
    no_proposals: tuple[Silence, ...]
    applied: tuple[Applied, ...]
    first_accepted: int | None
    as_live: bool | None
    remarks: tuple[str, ...]


class _Witness:
    """An agent, with what it was shown and what it answered since somebody asked."""

    def __init__(self, agent: Agent) -> None:
        self.name = agent.name
        self._agent = agent
        self._answers: list[tuple[Window, Proposal | NoProposal]] = []

    def propose(self, window: Window) -> Proposal | NoProposal:
        answer = self._agent.propose(window)
        self._answers.append((window, answer))
        return answer

    def window_of(self, proposal: Proposal) -> Window:
        """What it was shown when it proposed this."""
        return next(window for window, answer in self._answers if answer is proposal)

    def forget(self) -> None:
        self._answers.clear()


@dataclass
class _Pilot(Autopilot):
    """The pilot's loop on recorded time: how long a row takes to replay must change nothing."""

    due: Due | None = None

    def next_look(self) -> tuple[float, float]:
        """Steps between which there is nothing to look at again without any news."""
        lowest, highest = self._retries()
        due = self._due_step()
        return lowest, min(highest, due) if due > self.run.info().step else highest

    def _due_step(self) -> float:
        step = self.due(self.run.info()) if self.due is not None else None
        return inf if step is None else step

    def _waited(self, last: Any) -> bool:
        return super()._waited(last) or self.run.info().step >= self._due_step()

    def _retries(self) -> tuple[float, float]:
        steps = [asked.step for asked in self._considered.values() if asked.again]
        if steps:
            still_open = {e.id for e in self.run.episodes() if e.status == "open"}
            steps = [a.step for e, a in self._considered.items() if a.again and e in still_open]
        if not steps:
            return ALWAYS
        return max(steps) - RETRY_STEPS, min(steps) + RETRY_STEPS


@dataclass
class _Tally:
    """Collects a report while the events go by."""

    findings: list[Finding] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    applied: dict[str, tuple[int, str]] = field(default_factory=dict)
    first_accepted: int | None = None

    def note(self, events: Sequence[Event]) -> None:
        """Take in what was journaled."""
        for event in events:
            match event.kind:
                case "finding" if event.actor == SYSTEM:
                    self.findings.append(Finding.model_validate(event.body["finding"]))
                case "no_proposal":
                    said = NoProposal.model_validate(event.body["no_proposal"])
                    silence = Silence(step=event.step, branch=event.branch, no_proposal=said)
                    self.silences.append(silence)
                case "applied":
                    self.applied[event.body["record"]["id"]] = event.step, event.branch
                case _:
                    pass

    def decide(self, judged: Judged, window: Window) -> None:
        """Take in a proposal that was judged."""
        record = judged.record
        acts = changes_course(record.proposal.interventions)
        seen = Seen(
            last_step=window.table[-1].last_step if window.table else 0,
            findings=len(window.findings),
            checkpoints=len(window.checkpoints),
            tried=len(window.history),
            summaries=window.summaries,
        )
        decision = Decision(
            step=window.run.step,
            branch=window.run.branch,
            rows=judged.rows,
            episode=window.episode,
            seen=seen,
            proposal=record.proposal,
            verdict=record.verdict,
            acts=acts,
            hypothetical=self.first_accepted is not None,
        )
        if self.first_accepted is None and acts and record.verdict.decision == "allow":
            self.first_accepted = len(self.decisions)
        self.decisions.append(decision)


def replay(
    recorded: RecordedRun,
    agent: Agent,
    policy: Policy | None = None,
    *,
    watch: Watch | None = None,
    row_by_row: bool = False,
    due: Due | None = None,
) -> ReplayReport:
    """Play a recording to an agent: the control plane and the loop of a live flight, on its rows.

    Causal: the agent is asked right after the row that raised the question, and sees no later one.
    Deterministic, as far as the agent is. What is allowed is noted and not applied, for the
    recorded rows cannot answer to it.

    Args:
        recorded: The run.
        agent: Who is asked.
        policy: What its proposals are judged by; None takes the default policy.
        watch: Told of what is new whenever the pilot has looked.
        row_by_row: Call ``watch`` after every row, for somebody who looks on.
        due: When an agent that answers at recorded steps is asked again.

    Raises:
        BadInput: The recording is not what it should be.
    """
    policy = read_policy(None) if policy is None else policy
    witness, tally = _Witness(agent), _Tally()
    most = 1 if row_by_row else sys.maxsize
    # One that only observes answers "waiting" for ever: it is asked when there is news.
    observing = isinstance(agent, ObserveAgent)
    with Playback(recorded, policy, agent.name) as playback:
        pilot = _Pilot(playback.run, witness, retry_seconds=inf, due=due)
        counted, seen, stop, between = 0, 0, "read", ALWAYS
        while stop != "over":
            stop = playback.advance(most=most, between=between)
            events: list[Event] = []
            if stop != "read":
                witness.forget()
                pilot.look()
                between = ALWAYS if observing else pilot.next_look()
                for judged in playback.judged[counted:]:
                    tally.decide(judged, witness.window_of(judged.record.proposal))
                counted = len(playback.judged)
                events = _events_after(playback.run, seen)
                seen = events[-1].seq if events else seen
                tally.note(events)
            if watch is not None:
                watch(playback, events)
        return _report(recorded, agent, policy, playback, tally)


def _events_after(run: Run, seq: int) -> list[Event]:
    found: list[Event] = []
    while more := run.events(found[-1].seq if found else seq):
        found += more
    return found


def _report(
    recorded: RecordedRun, agent: Agent, policy: Policy, playback: Playback, tally: _Tally
) -> ReplayReport:
    info = playback.run.info()
    applied = tuple(
        Applied(step=step, branch=branch, record=playback.run.proposal(proposal))
        for proposal, (step, branch) in tally.applied.items()
    )
    live = _found_live(recorded.events)
    as_live = None if live is None else live == [_gist(finding) for finding in tally.findings]
    report = ReplayReport(
        name=recorded.name,
        run_id=recorded.run_id,
        agent=agent.name,
        policy_digest=policy.digest(),
        rows=playback.rows_read,
        step=info.step,
        branch=info.branch,
        findings=tuple(tally.findings),
        episodes=tuple(playback.episodes()),
        decisions=tuple(tally.decisions),
        no_proposals=tuple(tally.silences),
        applied=applied,
        first_accepted=tally.first_accepted,
        as_live=as_live,
        remarks=recorded.remarks,
    )
    return report.model_copy(update={"remarks": (*recorded.remarks, *_remarks(report, playback))})


def _remarks(report: ReplayReport, playback: Playback) -> list[str]:
    """What whoever reads the report has to know."""
    remarks = []
    if not report.rows:
        remarks.append("the recording holds no rows")
    if not playback.timed and report.rows:
        remarks.append("rows carry no time: a step counts as one second of it")
    if report.decisions:
        if not playback.published:
            remarks.append("what the run could have done is assumed from its metrics")
        remarks.append(
            f"a snapshot in memory is assumed every {SNAPSHOT_STEPS} steps, or every row where "
            "rows are further apart"
        )
    if report.applied:
        remarks.append(
            f"{len(report.applied)} interventions were applied to the recorded run; they are "
            "replayed as facts, whatever was proposed here"
        )
    if report.first_accepted is not None:
        step = report.decisions[report.first_accepted].step
        remarks.append(
            f"a proposal was accepted after step {step}: from there on the recorded future is no "
            "longer what would have happened; the replay went on as if nothing had been applied"
        )
    if report.as_live is False:
        remarks.append(
            "the findings are not those of the live run: it ran under another version of the "
            "detectors, or its journal is not whole"
        )
    return remarks


def _found_live(events: Sequence[Event]) -> list[tuple[object, ...]] | None:
    """What the recorded run's own detectors found; None where they never ran."""
    begun = [event for event in events if event.kind == "run_started"]
    if not begun or any("imported_from" in event.body for event in begun):
        return None
    return [
        _gist(Finding.model_validate(event.body["finding"]))
        for event in events
        if event.kind == "finding" and event.actor == SYSTEM
    ]


def _gist(finding: Finding) -> tuple[object, ...]:
    return finding.kind, finding.detector, finding.metric, finding.step, finding.branch
