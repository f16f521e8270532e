"""The Run port over a recording, and the playback that moves it on."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Literal, Self

from autopilot.control import PlaneRun
from autopilot.policy import Policy
from autopilot.recording.clock import RecordedClock
from autopilot.recording.past import PastJournal
from autopilot.recording.plane import ReplayPlane, Stop
from autopilot.recording.recorded import RecordedRun
from autopilot.recording.side import RecordedSide
from autopilot.recording.timeline import timeline
from autopilot.schema import Episode, Event, Proposal, ProposalRecord

ALWAYS = (float("-inf"), float("inf"))
"""Steps between which a playback reads on: all of them."""


@dataclass(frozen=True)
class Judged:
    """A proposal of the replayed agent as it was judged, with the row after which."""

    record: ProposalRecord
    rows: int


class Recording(PlaneRun):
    """A recorded run as the pilot sees it, up to the row that was read last and no further.

    It has no way to read on; whoever plays it back has. See :class:`Playback`.
    """

    _plane: ReplayPlane

    def __init__(self, plane: ReplayPlane, actor: str, judged: Callable[[Judged], None]) -> None:
        super().__init__(plane, actor)
        self._judged = judged
        self._filed: set[str] = set()

    def propose(self, proposal: Proposal, *, key: str) -> ProposalRecord:
        """File a proposal: it is judged as in flight, noted, and never applied."""
        record = super().propose(proposal, key=key)
        if record.id in self._filed:
            return record
        self._filed.add(record.id)
        self._judged(Judged(record, self._plane.rows_read))
        return self._plane.set_aside(record)


class Playback:
    """Plays a recording: feeds its rows, in order, to a control plane of its own.

    Args:
        recorded: The run.
        policy: What proposals are judged by.
        agent: Name of the agent that is going to be replayed.

    Attributes:
        run: What the agent's loop is given.
        judged: The replayed agent's proposals so far, each as it was judged.
        timed: Rows carry times; without, every row counts one second.
        published: The run said what it offers; without, that is assumed from its metrics.
    """

    def __init__(self, recorded: RecordedRun, policy: Policy, agent: str) -> None:
        first = next(iter(islice(recorded.rows(), 1)), None)
        clock, side = RecordedClock(first), RecordedSide(first)
        journal = PastJournal.create(":memory:", run_id=recorded.run_id, name=recorded.name)
        self._plane = ReplayPlane(
            journal, policy, side, source=recorded.rows, clock=clock, steps=recorded.steps
        )
        self._plane.start({"name": recorded.name, "replayed": True})
        self._clock = clock
        self._items = timeline(recorded)
        self._end = _recorded_end(recorded.events)
        self.timed = clock.timed
        self.published = any(event.kind == "capabilities" for event in recorded.events)
        self.judged: list[Judged] = []
        self.run = Recording(self._plane, f"agent:{agent}", self.judged.append)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._items.close()
        self._plane.close()

    def advance(self, *, most: int = sys.maxsize, between: tuple[float, float] = ALWAYS) -> Stop:
        """Read on until something is found, or the recorded run was changed.

        Args:
            most: Rows to read at most.
            between: Stop at a row whose step is not strictly between these, too.

        Returns:
            Why it stopped; at the end of the recording the run is ended.
        """
        stop = self._plane.read_on(self._items, most=most, between=between)
        if stop == "over":
            self._plane.end(*self._end)
        return stop

    @property
    def rows_read(self) -> int:
        """Rows read so far."""
        return self._plane.rows_read

    @property
    def now(self) -> float:
        """Recorded time of the last row, in seconds."""
        return self._clock.now()

    def episodes(self) -> Sequence[Episode]:
        """Every episode, closed ones too."""
        return self._plane.episodes(closed=True)

    def proposals(self) -> Sequence[ProposalRecord]:
        """What was applied in the recorded run, and what was proposed in this replay."""
        return self._plane.proposals()


def _recorded_end(events: Sequence[Event]) -> tuple[Literal["ended", "failed"], str]:
    ends = [event for event in events if event.kind == "run_ended"]
    if not ends:
        return "ended", "the recording is over"
    body = ends[-1].body
    return ("failed" if body.get("status") == "failed" else "ended"), str(body.get("reason", ""))
