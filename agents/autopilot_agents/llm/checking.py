"""From a model's answer to a proposal, or to what is wrong with it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from autopilot.limits import check_limits
from autopilot.policy import Policy
from autopilot.schema import (
    CallAction,
    Evidence,
    Intervention,
    NoProposal,
    NoProposalKind,
    Proposal,
    Rollback,
    SetKnob,
    Window,
)
from autopilot.supported import check_supported
from autopilot_agents.llm.actions import Answer, Change, Propose, Wait
from autopilot_agents.llm.fence import clean, plain_name
from autopilot_agents.llm.figures import Figures, citations

_WAITS: dict[str, NoProposalKind] = {
    "benign": "benign",
    "not_yet": "waiting",
    "cannot_tell": "cannot_tell",
}


class Unusable(Exception):
    """An answer of the right form that cannot be used; its text says why, to who gave it."""


@dataclass(frozen=True)
class Desk:
    """Checks answers against what was shown and what may be done.

    Attributes:
        window: What the model was shown.
        policy: Its limits hold; its rules are the run's to apply.
        figures: What it may cite.
        kinds: Kinds of intervention that were offered.
    """

    window: Window
    policy: Policy
    figures: Figures
    kinds: Collection[str]

    def problem(self, answer: Answer) -> str | None:
        """What is wrong with an answer; None where it can be used."""
        try:
            self.concluded(answer)
        except Unusable as error:
            return str(error)
        return None

    def concluded(self, answer: Answer) -> Proposal | NoProposal:
        """The proposal, or why there is none.

        Raises:
            Unusable: A figure was not shown, or the run or the policy's limits do not allow it.
        """
        episode = self.window.episode
        own = episode.id if episode is not None else None
        if isinstance(answer, Wait):
            words = clean(answer.rationale, 1500)
            return NoProposal(kind=_WAITS[answer.why], reason=words, episode=own)
        assert isinstance(answer, Propose), "every answer proposes or waits"
        evidence = self._evidence(answer.evidence)
        self._check_prose(answer.rationale, answer.expected_effect)
        interventions = self._interventions(answer.change)
        return Proposal(
            interventions=interventions,
            episode=own,
            cause=episode.kind if episode is not None else None,
            rationale=f"{answer.diagnosis}: {clean(answer.rationale, 1500)}",
            evidence=evidence,
            expected_effect=clean(answer.expected_effect, 500),
            state_version=self.window.run.state_version,
        )

    def _evidence(self, cited: Iterable[str]) -> tuple[Evidence, ...]:
        found = []
        for text in cited:
            figures = citations(text)
            if len(figures) != 1:
                raise Unusable(f"evidence {clean(text, 60)}: expected one metric@step=value")
            recorded = self.figures.find(figures[0])
            if recorded is None:
                raise Unusable(f"evidence {self.figures.problem(figures[0])}")
            found.append(recorded)
        return tuple(dict.fromkeys(found))

    def _check_prose(self, *texts: str) -> None:
        for text in texts:
            for cited in self.figures.unknown(text):
                raise Unusable(self.figures.problem(cited))

    def _interventions(self, change: Change) -> tuple[Intervention, ...]:
        can = self.window.run.capabilities
        try:
            found = tuple(self._resolved(i) for i in change.interventions())
        except ValidationError as error:
            raise Unusable(error.errors()[0]["msg"]) from error
        for intervention in found:
            if intervention.kind not in self.kinds:
                raise Unusable(f"{intervention.kind} is not offered")
            problem = check_supported(intervention, can, self.window.checkpoints)
            if problem:
                raise Unusable(problem)
        broken = check_limits(self.policy.limits, found, can)
        if broken is not None:
            raise Unusable(f"{broken.rule}: {broken.reason}")
        if self._failed_before(found):
            raise Unusable("exactly this was tried for this episode and taken back")
        return found

    def _resolved(self, intervention: Intervention) -> Intervention:
        """With the run's own names in place of those that were shown."""
        can = self.window.run.capabilities
        match intervention:
            case SetKnob():
                name = _meant(intervention.name, can.knobs)
                return intervention.model_copy(update={"name": name})
            case CallAction():
                name = _meant(intervention.name, can.actions)
                return intervention.model_copy(update={"name": name})
            case Rollback():
                held = _meant(intervention.checkpoint, (c.id for c in self.window.checkpoints))
                return intervention.model_copy(update={"checkpoint": held})
            case _:
                return intervention

    def _failed_before(self, interventions: tuple[Intervention, ...]) -> bool:
        own = self.window.episode
        return any(
            record.status == "reverted"
            and own is not None
            and record.proposal.episode == own.id
            and record.proposal.interventions == interventions
            for record in self.window.history
        )


def _meant(shown: str, names: Iterable[str]) -> str:
    return next((name for name in names if plain_name(name, 100) == shown), shown)
