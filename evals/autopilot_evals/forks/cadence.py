"""Flying what others use: asked at a cadence of its own, and bound by nothing.

The pilot's loop asks an agent when an episode opens, and the default policy denies what no alarm
of the run supports. A rule that pilots by itself knows neither: its users ask it at a fixed
interval and do what it says. As a reference it is flown like that, over the same control plane, so
that its changes are applied, read back and journaled like any agent's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from autopilot.control import ControlPlane, PlaneRun
from autopilot.policy import (
    Budget,
    CanaryTerms,
    Cooldown,
    InterventionBudget,
    LearningRateLimits,
    Limits,
    PerDay,
    Policy,
    read_policy,
)
from autopilot.ports import Agent, Run
from autopilot.schema import NoProposal, Proposal, Window
from autopilot.window import build_window
from autopilot_evals.forks.lockstep import pilot_of

_NO_END = 1_000_000_000

UNGUARDED = read_policy(None).model_copy(
    update={
        "default": "allow",
        "rules": (),
        "limits": Limits(
            lr=LearningRateLimits(min=1e-12, max_factor=1000.0, total_factor=(1e-12, 1e12))
        ),
        "budget": Budget(
            interventions=InterventionBudget(per_1000_steps=_NO_END, per_day=_NO_END),
            rollbacks=PerDay(per_day=_NO_END),
            skipped_batches=PerDay(per_day=_NO_END),
        ),
        "cooldown": Cooldown(steps=0, same_episode=0, quiet=()),
        "canary": CanaryTerms(revert_if="never"),
    }
)
"""Everything the run supports is allowed at once and nothing is taken back; reflexes as ever."""


@runtime_checkable
class Reference(Protocol):
    """An agent of others, or a habit, beside which agents are judged.

    Attributes:
        times_asked: How often it is asked in a whole run, at even distances, whatever the run's
            own detectors say.
    """

    name: str
    times_asked: int

    def propose(self, window: Window) -> Proposal | NoProposal: ...


@dataclass
class Cadenced:
    """Asks an agent every so many steps and files what it proposes.

    Args:
        run: Piloted in lock-step: :meth:`look` is called after each step.
        agent: Asked without an episode.
        every: Steps between two questions.
    """

    run: Run
    agent: Agent
    every: int
    _steps: int = field(default=0, init=False)

    def look(self) -> None:
        """A step was done; ask where it is time to."""
        self._steps += 1
        if self._steps % self.every:
            return
        answer = self.agent.propose(build_window(self.run, None))
        if isinstance(answer, Proposal):
            self.run.propose(answer, key=f"{self.agent.name}:{self._steps}")


def look_of(plane: ControlPlane, agent: Agent, steps: int) -> Callable[[], object]:
    """What the pilot does after each step of a run of so many."""
    if isinstance(agent, Reference):
        every = max(steps // agent.times_asked, 1)
        return Cadenced(PlaneRun(plane, f"agent:{agent.name}"), agent, every).look
    return pilot_of(plane, agent).look


def default_policy(agent: Agent | None) -> Policy:
    """What an agent may do unless told otherwise: a reference whatever it likes."""
    return UNGUARDED if isinstance(agent, Reference) else read_policy(None)
