"""Every agent that can be evaluated, by name."""

from autopilot.errors import BadInput
from autopilot.ports import Agent
from autopilot_agents.known import AGENTS, make_agent
from autopilot_evals.baselines.pilots import PILOTS

NAMES = (*AGENTS, *PILOTS)


def make_any_agent(name: str) -> Agent:
    """An agent by name: those that pilot, those that others use, and habits.

    Raises:
        BadInput: There is none of that name, or its model is not set up.
    """
    if name not in NAMES:
        raise BadInput(f"--agent {name}: no such agent; known: {', '.join(NAMES)}")
    return PILOTS[name]() if name in PILOTS else make_agent(name)
