"""Rules act on what they know; a model is asked about the rest.

The model is asked where the rules cannot tell or have come to their end, where a remedy of theirs
failed its canary in this episode, and to explain every proposal that waits for a person. A model
that is late, broken or silent leaves what the rules alone would have done.
"""

from collections.abc import Sequence
from typing import Final

from autopilot.ports import Agent, Consulting
from autopilot.schema import (
    Consultation,
    NoProposal,
    NoProposalKind,
    Proposal,
    ProposalRecord,
    Window,
)

AMBIGUOUS: Final[frozenset[NoProposalKind]] = frozenset(("cannot_tell", "exhausted", "unsupported"))
"""What the rules say where they would rather have a person look."""


class RulesAndModel:
    """The recommended agent where a model is configured.

    Args:
        rules: Acts on what it knows.
        model: Is asked about the rest.
    """

    name = "rules+llm"

    def __init__(self, rules: Agent, model: Consulting) -> None:
        self._rules = rules
        self._model = model
        self.model = model.model
        self.prompt_sha = model.prompt_sha

    def known(self, window: Window) -> Proposal | NoProposal | None:
        """The rules' answer where they know one; a model that hangs never delays it."""
        answer = self._rules.propose(window)
        return None if _in_doubt(window, answer) else answer

    def propose(self, window: Window) -> Proposal | NoProposal:
        """The rules' answer, or the model's where the rules are at a loss."""
        known = self._rules.propose(window)
        if not _in_doubt(window, known):
            return known
        advice = self._model.propose(window)
        if isinstance(advice, Proposal) or isinstance(known, Proposal):
            return advice if isinstance(advice, Proposal) else known
        # A model that will answer later is worth waiting for; one that declined is not.
        kind = "transient" if advice.kind == "transient" else known.kind
        reason = f"{known.reason}; the model ({advice.kind}): {advice.reason}"
        return NoProposal(kind=kind, reason=reason, episode=known.episode)

    def review(self, record: ProposalRecord, window: Window) -> Consultation:
        """The model's explanation of a proposal."""
        return self._model.review(record, window)

    def consultations(self) -> Sequence[Consultation]:
        """What the model was asked since the last call."""
        return self._model.consultations()


def _in_doubt(window: Window, known: Proposal | NoProposal) -> bool:
    episode = window.episode
    if episode is None or episode.diagnosis == "benign":
        return False
    tried = [record for record in window.history if record.proposal.episode == episode.id]
    if any(r.approval is not None and r.approval.decision == "deny" for r in tried):
        return False  # a person said no; no model is asked to find another way
    if isinstance(known, NoProposal):
        return known.kind in AMBIGUOUS
    failed = (r.canary_result for r in tried)
    return any(result is not None and result.result == "reverted" for result in failed)
