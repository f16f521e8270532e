"""A run that is over, as recorded: rows in order, how branches forked, what was journaled."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from autopilot.schema import Event, Row


class Fork(NamedTuple):
    """A branch began: it leaves its parent's course after that step."""

    name: str
    parent: str
    fork_step: int


@dataclass(frozen=True)
class RecordedRun:
    """What replay and evaluation read of a run.

    Attributes:
        name: For people.
        run_id: Identity; the same recording always has the same.
        rows: Begins a new pass over all rows in the order they were recorded; it never holds more
            than a page of them in memory.
        forks: Branches other than the main one, in the order they began. A row names its branch.
        events: What the run's own journal says; empty for what another program recorded.
        steps: Steps the run was to take, where that is known.
        remarks: What the reader mapped, repaired or left out, a line each.
    """

    name: str
    run_id: str
    rows: Callable[[], Iterator[Row]]
    forks: tuple[Fork, ...] = ()
    events: tuple[Event, ...] = ()
    steps: int | None = None
    remarks: tuple[str, ...] = ()
