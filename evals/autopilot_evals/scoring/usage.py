"""What decisions cost, and which model they came of, for agents that consult one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autopilot.ports import Agent, Consulting
from autopilot.schema import Consultation, NoProposal, Proposal, ProposalRecord, Usage, Window


@dataclass(frozen=True)
class AgentCard:
    """What an agent is; the model and the digest of its prompts where it consults one."""

    name: str
    model: str | None = None
    prompt_sha: str | None = None


def card_of(agent: Agent) -> AgentCard:
    """An agent's card.

    >>> from autopilot_agents.rules import RuleAgent
    >>> card_of(RuleAgent())
    AgentCard(name='rules', model=None, prompt_sha=None)
    """
    if not isinstance(agent, Consulting):
        return AgentCard(agent.name)
    return AgentCard(agent.name, agent.model, agent.prompt_sha)


def consulted(agent: Agent) -> tuple[Consultation, ...]:
    """What the agent's models were asked since the last call; empty where it has none."""
    return tuple(agent.consultations()) if isinstance(agent, Consulting) else ()


class Metered:
    """A consulting agent, with everything that its models were asked.

    Args:
        agent: Who answers.
    """

    def __init__(self, agent: Consulting) -> None:
        self.name, self.model, self.prompt_sha = agent.name, agent.model, agent.prompt_sha
        self._agent = agent
        self._asked: list[Consultation] = []

    def known(self, window: Window) -> Proposal | NoProposal | None:
        return self._agent.known(window)

    def propose(self, window: Window) -> Proposal | NoProposal:
        return self._agent.propose(window)

    def review(self, record: ProposalRecord, window: Window) -> Consultation:
        return self._agent.review(record, window)

    def consultations(self) -> Sequence[Consultation]:
        asked = self._agent.consultations()
        self._asked += asked
        return asked

    def asked(self) -> tuple[Consultation, ...]:
        """Everything, since this one was made."""
        self.consultations()
        return tuple(self._asked)


def total(usages: Iterable[Usage | None]) -> Usage | None:
    """All together; None where no model was asked. One unknown price makes the sum unknown.

    >>> both = total([Usage(calls=1, price_usd=0.5), None, Usage(calls=1, price_usd=None)])
    >>> both.calls, both.price_usd
    (2, None)
    """
    known = [usage for usage in usages if usage is not None]
    if not known:
        return None
    prices = [usage.price_usd for usage in known if usage.price_usd is not None]
    return Usage(
        calls=sum(usage.calls for usage in known),
        input_tokens=sum(usage.input_tokens for usage in known),
        cached_tokens=sum(usage.cached_tokens for usage in known),
        output_tokens=sum(usage.output_tokens for usage in known),
        price_usd=sum(prices) if len(prices) == len(known) else None,
        seconds=sum(usage.seconds for usage in known),
    )


def cost(spent: Usage | None, decisions: int) -> str:
    """Dollars a decision in words: a dash where no model is asked, and unknown is not nothing.

    >>> cost(None, 65), cost(Usage(price_usd=None), 65), cost(Usage(price_usd=0.13), 65)
    ('-', 'unknown', '$0.0020')
    """
    if spent is None:
        return "-"
    return "unknown" if spent.price_usd is None else f"${spent.price_usd / decisions:.4f}"
