"""The time of a replay: what the rows say, never what the machine says."""

from autopilot.control.observation import Observation
from autopilot.schema import Row

STEP_SECONDS = 1.0
"""What a step counts for in a recording without times."""


class RecordedClock:
    """Stands at the time of the row that was read last; it never goes back.

    Args:
        first: The first row of the recording; if it carries no time, every step counts one second.
    """

    def __init__(self, first: Row | None) -> None:
        self.timed = first is not None and first.time > 0.0
        self._now = first.time if first is not None and self.timed else 0.0
        self._observation: Observation | None = None

    def follow(self, observation: Observation) -> None:
        """Name where rows are read."""
        self._observation = observation

    def now(self) -> float:
        """Seconds since the epoch; steps executed where rows carry no time."""
        here = self._observation
        if here is None or not here.recent:
            return self._now
        read = here.recent[-1].time if self.timed else here.executed * STEP_SECONDS
        self._now = max(self._now, read)
        return self._now
