"""Rows and what the journal says between them, in the order in which they happened."""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from autopilot.errors import BadInput
from autopilot.recording.recorded import Fork, RecordedRun
from autopilot.schema import MAIN, Event, EventKind, Row

FACTS: frozenset[EventKind] = frozenset(
    {
        "branch",
        "applied",
        "receipt",
        "canary",
        "status",
        "breaker",
        "checkpoint",
        "capabilities",
        "guidance",
    }
)
"""Kinds of event that a replay takes over; findings only where an outside detector claimed them."""


@dataclass(frozen=True)
class _Mark:
    """An event, with the rows that certainly come before it, and those that certainly come after.

    Rows up to the number ``least`` were recorded by an earlier process; rows after the number
    ``most`` were sealed after the event was written.
    """

    event: Event
    least: int
    most: float

    def precedes(self, number: int, row: Row, begun: set[str]) -> bool:
        """Whether it happened before that row, the ``number``-th of the recording."""
        event = self.event
        if number <= self.least:
            return False
        if number > self.most or row.branch not in begun:
            return True
        if event.kind == "branch":
            return False
        if event.branch != row.branch or row.step != event.step:
            return event.branch != row.branch or row.step > event.step
        return row.time > event.time  # an evaluation after the boundary has the step's number too


Facts = list[Fork | Event]
"""What happened between two rows, in order."""


def timeline(recorded: RecordedRun) -> Generator[Row | Facts]:
    """Everything that happened, in order: rows, and between them branches and other facts.

    Within one process steps go back only where a branch begins, so an event stands after the last
    row of its own step and branch.

    Raises:
        BadInput: A row names a branch that nothing began.
    """
    marks = _marks(recorded.events)
    if not marks and not recorded.forks:
        return _single(recorded)
    return _merged(recorded, marks)


def _single(recorded: RecordedRun) -> Generator[Row]:
    for row in recorded.rows():
        if row.branch != MAIN:
            raise _unknown_branch(recorded, row)
        yield row


def _merged(recorded: RecordedRun, marks: deque[_Mark]) -> Generator[Row | Facts]:
    forks = {fork.name: fork for fork in recorded.forks}
    begun = {MAIN}
    for number, row in enumerate(recorded.rows(), 1):
        facts: Facts = []
        while marks and marks[0].precedes(number, row, begun):
            facts += _told(marks.popleft().event, begun)
        if row.branch not in begun:
            if row.branch not in forks:
                raise _unknown_branch(recorded, row)
            new = [fork for fork in _lineage(row.branch, forks) if fork.name not in begun]
            begun.update(fork.name for fork in new)
            facts += new
        if facts:
            yield facts
        yield row
    if marks:
        yield [fact for mark in marks for fact in _told(mark.event, begun)]


def _told(event: Event, begun: set[str]) -> Facts:
    if event.kind != "branch":
        return [event]
    fork = Fork(event.body["name"], event.body["parent"], int(event.body["fork_step"]))
    if fork.name in begun:
        return []
    begun.add(fork.name)
    return [fork]


def _lineage(name: str, forks: dict[str, Fork]) -> list[Fork]:
    """The branch with its ancestors, oldest first."""
    found: list[Fork] = []
    while name in forks and forks[name] not in found:
        found.append(forks[name])
        name = forks[name].parent
    return found[::-1]


def _unknown_branch(recorded: RecordedRun, row: Row) -> BadInput:
    return BadInput(
        f"{recorded.name}: the row of step {row.step} is of branch {row.branch!r}, which nothing "
        f"began; expected {MAIN!r} or a branch that the recording says was forked"
    )


def _marks(events: Sequence[Event]) -> deque[_Mark]:
    """The facts among the events, each with what the seals say of its place."""
    ends = _next_seals(events)
    found: deque[_Mark] = deque()
    least = sealed = 0
    for event, most in zip(events, ends, strict=True):
        if event.kind == "rows_sealed":
            sealed = int(event.body["last"])
        elif event.kind == "run_started":
            if least or sealed or found:
                found.append(_Mark(event, sealed, sealed))
            least = sealed
        elif _is_fact(event):
            found.append(_Mark(event, least, most))
    return found


def _next_seals(events: Iterable[Event]) -> list[float]:
    """For each event the number of the last row that the next seal binds."""
    found: list[float] = []
    last = float("inf")
    for event in reversed(tuple(events)):
        if event.kind == "rows_sealed":
            last = float(event.body["last"])
        found.append(last)
    return found[::-1]


def _is_fact(event: Event) -> bool:
    if event.kind == "finding":
        return bool(event.body["finding"].get("claimed_by"))
    if event.kind == "status":
        return "record" in event.body
    return event.kind in FACTS
