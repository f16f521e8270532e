"""What the run offers, journaled whenever it changes, so that a replay knows it too."""

from autopilot.control.core import SYSTEM, Core
from autopilot.schema import Capabilities

_EVERY = 1.0
"""Seconds between two looks: asking the training side costs more than a row does."""


class Published:
    """Journals capabilities. Guarded by the control plane's lock."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._shape: Capabilities | None = None
        self._due = 0.0

    def check(self) -> None:
        """Journal what is offered, if that is due and anything but a value in force changed."""
        core, now = self._core, self._core.clock.now()
        if now < self._due:
            return
        self._due = now + _EVERY
        offered = core.side.capabilities()
        shape = offered.model_copy(update={"settings": {}})
        if shape != self._shape:
            self._shape = shape
            body = {"capabilities": offered.model_dump(mode="json")}
            core.write("capabilities", SYSTEM, body)
