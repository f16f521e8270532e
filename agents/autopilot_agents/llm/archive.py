"""A run that questions are asked about: its journal, whole, or as much of it as a URL gives.

Nothing is ever written, and a viewer's token is enough.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

from autopilot.client import HttpRun, connect
from autopilot.errors import AutopilotError, BadPolicy
from autopilot.journal import Journal, JournalReader
from autopilot.policy import Policy, parse_policy
from autopilot.recording import is_run
from autopilot.recording.journaled import JOURNAL_FILE
from autopilot.report.history import History, read_history
from autopilot.schema import (
    MAIN,
    Capabilities,
    CheckpointInfo,
    Episode,
    Event,
    Finding,
    Guidance,
    ProposalRecord,
    Row,
    RunInfo,
)
from autopilot_agents.llm.fence import plain_name

SPAN: Final = 4096
"""Rows of a branch that are looked at together at most."""
_REMOTE_ROWS: Final = 10_000
"""Most rows that a control API hands out at once."""
_NEWEST_BRANCHES: Final = 32

Course = list[tuple[int, float]]


class Rows(Protocol):
    """Where rows are read."""

    @property
    def reach(self) -> str:
        """What cannot be read, in words; empty where everything can."""
        ...

    def between(self, branch: str, first: int, last: int) -> Sequence[Row]:
        """The last rows of a branch, and its ancestors, between two steps."""
        ...

    def course(self, metric: str, branch: str, points: int) -> Course:
        """A metric over the history of a branch: recorded points, extremes kept."""
        ...


@dataclass(frozen=True)
class _Stored:
    reader: JournalReader
    reach: str = ""

    def between(self, branch: str, first: int, last: int) -> Sequence[Row]:
        return self.reader.rows(branch, last=SPAN, from_step=first, to_step=last)

    def course(self, metric: str, branch: str, points: int) -> Course:
        return self.reader.series(metric, branch, points)


@dataclass(frozen=True)
class _Remote:
    run: HttpRun
    reach: str = f"over a URL only the last {_REMOTE_ROWS:,} rows of a branch can be read"
    _read: dict[str, list[Row]] = field(default_factory=dict)

    def between(self, branch: str, first: int, last: int) -> Sequence[Row]:
        if branch not in self._read:
            self._read[branch] = self.run.rows(last=_REMOTE_ROWS, branch=branch)
        return [row for row in self._read[branch] if first <= row.step <= last][-SPAN:]

    def course(self, metric: str, branch: str, points: int) -> Course:
        return self.run.series([metric], branch=branch, points=points).get(metric, [])


@dataclass(frozen=True)
class Archive:
    """What is recorded of a run, live or over.

    Attributes:
        info: How it stands; of a run that is over, as far as its journal tells.
        state: The same in words, with the reason of an end.
        live: Its process answers.
        policy: What it is judged by; None where its journal does not say.
        checkpoints: States to go back to that are known.
    """

    info: RunInfo
    state: str
    live: bool
    policy: Policy | None
    events: Sequence[Event]
    checkpoints: Sequence[CheckpointInfo]
    rows: Rows

    @cached_property
    def history(self) -> History:
        """Proposals and episodes as they last stood."""
        return read_history(self.events)

    @property
    def episodes(self) -> list[Episode]:
        """Every episode, those that are over included."""
        return list(self.history.episodes.values())

    @property
    def proposals(self) -> list[ProposalRecord]:
        """Everything that was proposed, with what became of it."""
        return list(self.history.records.values())

    @cached_property
    def findings(self) -> list[Finding]:
        """Everything that was found or claimed."""
        found = (e.body["finding"] for e in self.events if e.kind == "finding")
        return [Finding.model_validate(one) for one in found]

    @cached_property
    def branches(self) -> list[str]:
        """The newest branches in the order in which they began, the one in force among them."""
        names = [MAIN, *(str(e.body["name"]) for e in self.events if e.kind == "branch")]
        newest = list(dict.fromkeys(names))[-_NEWEST_BRANCHES:]
        return newest if self.info.branch in newest else [*newest, self.info.branch]

    def between(self, first: int, last: int) -> list[Row]:
        """Rows between two steps on every branch, those that were left included."""
        return [
            row
            for branch in self.branches
            for row in self.rows.between(branch, first, last)
            if row.branch == branch
        ]

    def recent(self, count: int) -> Sequence[Row]:
        """The last rows of the branch in force."""
        here = self.info
        return self.rows.between(here.branch, max(0, here.step - SPAN), here.step)[-count:]

    def recorded(self, metric: str, step: int) -> list[tuple[str, float]]:
        """Every value of a metric at a step, each with its branch; the name as it is shown."""
        found = [
            (row.branch, value)
            for row in self.between(step, step)
            for name, value in row.values.items()
            if plain_name(name) == metric
        ]
        found += [
            (finding.branch, cited.value)
            for finding in self.findings
            if finding.claimed_by is None
            for cited in finding.evidence
            if (plain_name(cited.metric), cited.step) == (metric, step)
        ]
        return list(dict.fromkeys(found))

    def ids(self) -> frozenset[str]:
        """What can be cited by its id."""
        findings = (finding.id for finding in self.findings if finding.id)
        told = (e.body["guidance"]["id"] for e in self.events if e.kind == "guidance")
        checkpoints = (held.id for held in self.checkpoints)
        named = (*self.history.records, *self.history.episodes, *findings, *told, *checkpoints)
        return frozenset((*map(plain_name, named), *self.branches))


@contextmanager
def open_archive(place: str) -> Iterator[Archive]:
    """Open a run to be read.

    Args:
        place: A run directory or journal file, or the URL of a control API.

    Raises:
        NotARun: There is no run.
        JournalError: Its journal cannot be read.
        Unreachable: Nobody answers at the URL.
    """
    if "://" in place or not is_run(Path(place)):
        with connect(place, "viewer", "ask") as run:
            yield _live(run, list(_all_events(run)), _Remote(run))
        return
    path = Path(place)
    with Journal.read(path / JOURNAL_FILE if path.is_dir() else path) as reader:
        found = _answering(place, reader)
        yield found if found is not None else _over(reader)


def _answering(place: str, reader: JournalReader) -> Archive | None:
    """The archive of a run whose process answers; None where none does, or it is another's."""
    try:
        with connect(place, "viewer", "ask") as run:
            found = _live(run, reader.events(), _Stored(reader))
    except AutopilotError:
        return None
    return found if found.info.run_id == reader.run_id else None


def _live(run: HttpRun, events: Sequence[Event], rows: Rows) -> Archive:
    info = run.info()
    return Archive(
        info=info,
        state=info.status,
        live=True,
        policy=parse_policy(run.policy_text()),
        events=events,
        checkpoints=run.checkpoints(),
        rows=rows,
    )


def _all_events(run: HttpRun) -> Iterator[Event]:
    after = 0
    while events := run.events(after):
        yield from events
        after = events[-1].seq


def _over(reader: JournalReader) -> Archive:
    events = reader.events()
    told = [event.branch for event in events if event.kind != "rows_sealed"]
    branch = told[-1] if told else reader.branches()[-1].name  # not always the newest one
    rows = _Stored(reader)
    last = reader.rows(branch, last=1)
    end = read_history(events).end
    policy = _policy(events)
    status, reason = end or ("lost", "no end was journaled")
    info = RunInfo(
        name=reader.name,
        run_id=reader.run_id,
        status="failed" if status == "failed" else "ended",
        step=last[-1].step if last else 0,
        branch=branch,
        state_version=0,
        seq=reader.last_seq,
        started=events[0].time if events else 0.0,
        capabilities=_capabilities(events),
        policy_digest="",
        autonomy=policy.autonomy if policy is not None else "observe",
        llm_usd_per_day=float("inf"),  # nobody pilots it any more: it is the asker's own money
        guidance=_guidance(events),
    )
    return Archive(
        info=info,
        state=f"{status}: {reason}",
        live=False,
        policy=policy,
        events=events,
        checkpoints=[
            CheckpointInfo.model_validate(event.body["checkpoint"])
            for event in events
            if event.kind == "checkpoint"
        ],
        rows=rows,
    )


def _capabilities(events: Sequence[Event]) -> Capabilities:
    said = [event.body["capabilities"] for event in events if event.kind == "capabilities"]
    return Capabilities.model_validate(said[-1]) if said else Capabilities()


def _guidance(events: Sequence[Event]) -> tuple[Guidance, ...]:
    said = [Guidance.model_validate(e.body["guidance"]) for e in events if e.kind == "guidance"]
    last = {one.id: one for one in said}
    return tuple(one for one in last.values() if one.withdrawn_by is None)


def _policy(events: Sequence[Event]) -> Policy | None:
    texts = [str(e.body.get("policy", "")) for e in events if e.kind == "run_started"]
    if not texts or not texts[-1]:
        return None
    try:
        return parse_policy(texts[-1])
    except BadPolicy:
        return None
