"""Every agent by the name that people type."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from autopilot.client import HttpRun
from autopilot.errors import BadInput
from autopilot.policy import Policy
from autopilot.ports import Agent, Consulting, Run
from autopilot_agents.consult import RulesAndModel
from autopilot_agents.rules import ObserveAgent, RuleAgent


@dataclass(frozen=True)
class Terms:
    """What an agent may need beyond its name.

    Attributes:
        model: The language model; None takes ``AUTOPILOT_LLM_MODEL``.
        base_url: Of an OpenAI-compatible server; None takes ``AUTOPILOT_LLM_BASE_URL``.
        run: Where a model's look-ups read.
        policy: What may be done to the run; None is the default policy.
    """

    model: str | None = None
    base_url: str | None = None
    run: Run | None = None
    policy: Policy | None = None


def _model(terms: Terms) -> Consulting:
    from autopilot_agents.llm.agent import LLMAgent
    from autopilot_agents.llm.settings import read_settings

    settings = read_settings(model=terms.model, base_url=terms.base_url)
    return LLMAgent(settings, terms.run, terms.policy, past=_earlier_runs(terms.run, settings.past))


def _earlier_runs(run: Run | None, stated: Path | None) -> Path | None:
    """Where earlier runs lie. A replay is shown none: they may be later than what it replays."""
    if run is None:
        return None
    folder = run.folder if isinstance(run, HttpRun) else None
    return stated or (folder.resolve().parent if folder is not None else None)


AGENTS: Final[dict[str, Callable[[Terms], Agent]]] = {
    "rules": lambda terms: RuleAgent(),
    "observe": lambda terms: ObserveAgent(),
    "llm": _model,
    "rules+llm": lambda terms: RulesAndModel(RuleAgent(), _model(terms)),
}
"""Makes each agent."""


def make_agent(name: str, terms: Terms | None = None) -> Agent:
    """An agent by name, to pilot a run.

    Raises:
        BadInput: There is none of that name, or its model is not set up.
    """
    if name not in AGENTS:
        raise BadInput(f"--agent {name}: no such agent; known: {', '.join(AGENTS)}")
    return AGENTS[name](terms or Terms())
