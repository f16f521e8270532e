"""The rule agent: from a diagnosis to the remedy that was measured to work, rung by rung.

Needs no key and no network. It never acts without an episode, never on one that is benign or not
understood, and says what it would need to know when it cannot tell. The remedies are those of
forked small trainings: damaged weights go back and the cause is fixed, misdriven ones are fixed in
place, and a learning rate is never cut in place by reflex, which was harmful on average.
"""

from collections.abc import Callable

from autopilot.schema import Evidence, FindingKind, NoProposal, Proposal, Window
from autopilot_agents.case import Case, Remedy
from autopilot_agents.going_back import (
    go_back_and_clip,
    go_back_and_contain,
    go_back_and_lower_lr,
    go_back_and_restore_schedule,
    go_back_only,
)
from autopilot_agents.in_place import (
    calm_gradients,
    leave_out_source,
    look_closer,
    point_at_the_best,
    raise_lr,
    refresh_second_moment,
    restore_epsilon,
    restore_knobs,
    restore_loss_scale,
    restore_schedule,
    slow_decay,
)

Rung = Callable[[Case], Remedy | NoProposal]

DAMAGED: dict[FindingKind, tuple[Rung, ...]] = {
    "lr_too_high": (go_back_and_lower_lr,) * 3,
    "no_warmup": (go_back_and_lower_lr,) * 3,
    "logit_growth": (go_back_and_lower_lr,) * 2,
    "schedule_fault": (go_back_and_restore_schedule,) * 2,
    "non_finite": (go_back_and_clip, go_back_and_clip, go_back_and_lower_lr),
    "grad_spike": (go_back_and_contain, go_back_and_contain, go_back_and_lower_lr),
    "loss_spike": (go_back_and_contain, go_back_and_contain, go_back_and_lower_lr),
    "divergence": (go_back_and_contain, go_back_and_lower_lr, go_back_and_lower_lr),
    "slow_drift": (go_back_and_lower_lr,) * 2,
    "dead_units": (go_back_only, go_back_and_lower_lr),
    "silent_corruption": (go_back_only, go_back_only),
}
"""Ladder of remedies where weights are damaged."""

MISDRIVEN: dict[FindingKind, tuple[Rung, ...]] = {
    "schedule_fault": (restore_schedule,) * 2,
    "loss_scale_fault": (restore_loss_scale,) * 2,
    "dead_update": (restore_epsilon,),
    "decay_too_high": (slow_decay,),
    "lr_too_low": (raise_lr,) * 3,
    "data_repeat": (restore_knobs,),
    "loss_spike": (refresh_second_moment,),
    "grad_spike": (calm_gradients,),
    "divergence": (refresh_second_moment,),
    "bad_shard": (leave_out_source,),
    "overfit": (point_at_the_best,),
}
"""Ladder of remedies where weights are sound and a setting is not."""


class RuleAgent:
    """Walks the ladder of the episode's kind, one rung each time it comes back."""

    name = "rules"

    def propose(self, window: Window) -> Proposal | NoProposal:
        """The next rung, or why there is none."""
        episode = window.episode
        if episode is None:
            return NoProposal(kind="benign", reason="nothing is wrong")
        if episode.diagnosis == "benign":
            return NoProposal(kind="benign", reason=episode.reason, episode=episode.id)
        case = Case(window, episode)
        if episode.diagnosis == "unknown":
            closer = look_closer(case)
            if closer is not None:
                return _proposal(case, closer)
            reason = f"cannot tell whether the weights are damaged: {episode.reason}"
            return NoProposal(kind="cannot_tell", reason=reason, episode=episode.id)
        ladders = DAMAGED if episode.diagnosis == "damaged" else MISDRIVEN
        ladder = ladders.get(episode.kind, ())
        if not ladder:
            reason = f"no remedy is known for {episode.kind} ({episode.diagnosis})"
            return NoProposal(kind="unsupported", reason=reason, episode=episode.id)
        denied = case.denied()
        if denied is not None:
            reason = f"a person denied {denied.id} for this episode; it is theirs to act"
            return NoProposal(kind="exhausted", reason=reason, episode=episode.id)
        if case.rung >= len(ladder):
            reason = f"{case.rung} remedies for {episode.kind} were tried; a person should look"
            return NoProposal(kind="exhausted", reason=reason, episode=episode.id)
        remedy = ladder[case.rung](case)
        if isinstance(remedy, NoProposal):
            return remedy
        missing = [i.kind for i in remedy.interventions if not case.offers(i.kind)]
        if missing:
            return case.no("unsupported", f"this run does not offer {', '.join(missing)}")
        return _proposal(case, remedy)


class ObserveAgent:
    """Never proposes: detectors, triage and journal alone."""

    name = "observe"

    def propose(self, window: Window) -> Proposal | NoProposal:
        """Nothing, whatever is seen."""
        episode = window.episode.id if window.episode is not None else None
        return NoProposal(kind="waiting", reason="observing only", episode=episode)


def _proposal(case: Case, remedy: Remedy) -> Proposal:
    window, episode = case.window, case.episode
    return Proposal(
        interventions=remedy.interventions,
        episode=episode.id,
        cause=episode.kind,
        rationale=remedy.why,
        evidence=_evidence(case),
        expected_effect=remedy.expected,
        canary=remedy.canary,
        state_version=window.run.state_version,
    )


def _evidence(case: Case) -> tuple[Evidence, ...]:
    """The latest figures of the findings, as far as they lie on the branch in force."""
    branch = case.window.run.branch
    own = [f for f in case.window.findings if f.branch == branch and f.claimed_by is None]
    cited = [evidence for finding in own[-4:] for evidence in finding.evidence[-3:]]
    return tuple(dict.fromkeys(cited))[-8:]
