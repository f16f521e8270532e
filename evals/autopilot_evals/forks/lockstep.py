"""A session and a pilot in lock-step: after every step the pilot has looked before the next begins.

A live pilot is another process, and how many steps pass before it answers depends on the machine.
Here the same loop looks at the same control plane, in the training thread and without a socket, so
the same seed gives the same flight. What it waits for its agent costs the training no step, as with
a policy that holds on an alarm.
"""

from math import inf
from typing import Self

from autopilot.control import ControlPlane, PlaneRun
from autopilot.loop import Autopilot
from autopilot.ports import Agent
from autopilot_trainer import Session


class LockstepSession(Session):
    """A session without a control API and without a thread of its own.

    The loop calls ``plane.tick()`` after every step; nothing depends on the clock but what the run
    reports of its speed.
    """

    @property
    def plane(self) -> ControlPlane:
        """The run's control plane."""
        return self._training.plane

    def __enter__(self) -> Self:
        super().__enter__()
        assert self._thread is not None, "entering a session starts its control thread"
        self._thread.stop()
        return self

    def _serve(self, plane: ControlPlane) -> None:
        self._directory.publish(None)


def pilot_of(plane: ControlPlane, agent: Agent) -> Autopilot:
    """The pilot's loop without a clock: an agent that waits is asked again after some steps."""
    return Autopilot(PlaneRun(plane, f"agent:{agent.name}"), agent, retry_seconds=inf)
