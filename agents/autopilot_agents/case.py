"""What a remedy is given and what it makes.

Figures in the remedies, targets and factors, were read off small trainings with one fault each,
forked at the decision step and compared after equal budgets; see ``docs/policy.md`` for the table.
"""

from dataclasses import dataclass

from autopilot.schema import (
    Canary,
    CheckpointInfo,
    Episode,
    Evaluate,
    Intervention,
    NoProposal,
    ProposalRecord,
    Window,
)

REWARM_STEPS = 20
CLIP_OVER_MEDIAN = 2.0
_EARLY = 60
"""Sickness that began before this step leaves nothing worth going back to but the beginning."""
DONE = frozenset({"applied", "kept", "reverted"})


@dataclass(frozen=True)
class Remedy:
    """Interventions, and why; with a canary where the policy's would pass whatever they do."""

    interventions: tuple[Intervention, ...]
    why: str
    expected: str
    canary: Canary | None = None


@dataclass(frozen=True)
class Case:
    """An episode with what was tried for it."""

    window: Window
    episode: Episode

    @property
    def rung(self) -> int:
        """Remedies applied for this episode so far."""
        return sum(
            record.status in DONE
            and record.receipt is not None
            and record.proposal.interventions != (Evaluate(),)
            for record in self.tried
        )

    @property
    def tried(self) -> list[ProposalRecord]:
        """What was proposed for this episode."""
        return [r for r in self.window.history if r.proposal.episode == self.episode.id]

    def denied(self) -> ProposalRecord | None:
        """What a person denied of it."""
        decided = ((r, r.approval) for r in self.tried)
        return next((r for r, a in decided if a is not None and a.decision == "deny"), None)

    def figure(self, name: str) -> float | None:
        """A figure of the episode's fingerprint."""
        return self.episode.fingerprint.get(name)

    def offers(self, *kinds: str) -> bool:
        """The run supports these interventions."""
        return set(kinds) <= set(self.window.run.capabilities.interventions)

    def no(self, kind: str, reason: str) -> NoProposal:
        """Why nothing is proposed."""
        return NoProposal.model_validate(
            {"kind": kind, "reason": reason, "episode": self.episode.id}
        )

    def target(self, *, from_start: bool = False) -> CheckpointInfo | NoProposal:
        """The state to go back to: good, before the onset, and one deeper with every rung."""
        good = [
            c
            for c in self.window.checkpoints
            if c.good and (c.step <= self.episode.onset_step or c.step == 0)
        ]
        if not good:
            return self.no("unsupported", "no state from before the onset is known to be good")
        if from_start or self.episode.onset_step <= _EARLY:
            return good[0]
        depth = min(self.rung, len(good) - 1)
        return good[-1 - depth]

    def healthy_clip(self) -> float:
        """A limit on the gradient norm that sound gradients hardly meet."""
        median = self.figure("grad_norm_median")
        return 1.0 if median is None or median <= 0 else min(CLIP_OVER_MEDIAN * median, 1.0)
