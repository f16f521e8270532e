"""What a report is made from: everything that was read of a run, live or over."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autopilot.schema import Event, Row, RunInfo


@dataclass(frozen=True)
class Account:
    """A run as it was read.

    Attributes:
        place: How the reader named the run.
        rows: A new pass over its rows in the order in which they were made.
        events: Its whole journal, in order.
        info: What the process says of itself; None where none answers.
        read_at: When it was read, in seconds since the epoch.
        remarks: What could not be read.
    """

    place: str
    name: str
    run_id: str
    rows: Callable[[], Iterator[Row]]
    events: tuple[Event, ...]
    info: RunInfo | None
    read_at: float
    remarks: tuple[str, ...] = ()
