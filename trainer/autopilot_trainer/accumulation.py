"""Gradient accumulation that the loop leaves to the session: how many batches make an update."""

from typing import Any

from autopilot.errors import BadInput

MOST = 1024
"""Batches that an update may be made of."""


class Accumulation:
    """Counts the batches of each update, for a loop that asks when one is due.

    A change takes effect with the next update that is begun: the batches of one under way were
    weighed for its old number already.

    Args:
        batches: Of one update, to begin with.

    Attributes:
        wanted: What the next update that is begun is made of.
        in_force: What the present one is made of.
        was_due: The batch that was done last was its update's last one.
        asked: The loop has asked whether an update is due: it accumulates as it is told.

    Raises:
        BadInput: Not from 1 to :data:`MOST`.
    """

    def __init__(self, batches: int) -> None:
        if not 1 <= batches <= MOST:
            raise BadInput(f"accumulation={batches}: expected batches an update, 1 to {MOST}")
        self.default = self.wanted = self.in_force = batches
        self.asked = False
        self.was_due = True
        self._done = 0

    @property
    def due(self) -> bool:
        """The batch under way is the update's last one."""
        return self._done + 1 >= self.in_force

    def set(self, batches: int) -> None:
        """Make the updates to come of so many batches."""
        self.wanted = batches
        if self._done == 0:
            self.in_force = batches

    def end_step(self) -> None:
        """A batch is done."""
        self.was_due = self.due
        self._done = 0 if self.due else self._done + 1
        if self._done == 0:
            self.in_force = self.wanted

    def state_dict(self) -> dict[str, Any]:
        """Where in an update the loop is."""
        return {"done": self._done, "in_force": self.in_force}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to there; what is wanted stays, from the next update on."""
        self._done, self.in_force = state_dict["done"], state_dict["in_force"]
        if self._done == 0:
            self.in_force = self.wanted
