"""What the run offers, journaled whenever it changes, so that a replay knows it too."""

from autopilot.control.core import SYSTEM, Core
from autopilot.schema import Capabilities

_FIRST, _CALM, _MOST = 1.0, 10.0, 600.0
"""Seconds between two looks: asking the training side costs more than many rows do. They double
while nothing changes, and further with every entry, so that a knob which the script itself turns
all the time cannot fill the journal."""


class Published:
    """Journals capabilities. Guarded by the control plane's lock."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._shape: Capabilities | None = None
        self._due = 0.0
        self._pause = _FIRST

    def check(self) -> None:
        """Journal what is offered, if that is due and changed in more than values in force.

        Of a knob's value only whether it stands at its default counts, of a branch whether a
        state of it is held.
        """
        core, now = self._core, self._core.clock.now()
        if now < self._due:
            return
        self._due = now + self._pause
        offered = core.side.capabilities()
        shape = _shape(offered)
        if shape == self._shape:
            self._pause = max(self._pause, min(2 * self._pause, _CALM))
        else:
            if self._shape is not None:
                self._pause = min(2 * self._pause, _MOST)
            self._shape = shape
            body = {"capabilities": offered.model_dump(mode="json")}
            core.write("capabilities", SYSTEM, body)


def _shape(offered: Capabilities) -> Capabilities:
    knobs = {
        name: knob.model_copy(update={"value": knob.value == knob.default})
        for name, knob in offered.knobs.items()
    }
    held = {name: state and "held" for name, state in offered.branches.items()}
    return offered.model_copy(update={"settings": {}, "knobs": knobs, "branches": held})
