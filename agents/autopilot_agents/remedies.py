"""Remedies of the rule agent, each from a case to interventions with a reason.

Figures: targets and factors were read off small trainings with one fault each, forked at the
decision step and compared after equal budgets; see ``docs/policy.md`` for the table.
"""

from dataclasses import dataclass

from autopilot.schema import (
    CheckpointInfo,
    Episode,
    Evaluate,
    Intervention,
    NoProposal,
    ProposalRecord,
    ResetOptimizerState,
    RewarmLR,
    Rollback,
    ScaleLR,
    SetGradClip,
    SetKnob,
    SetLR,
    SetOptimizer,
    Window,
    metrics,
)

TARGET_FIRST_RATIO = 0.045
"""Update-to-weight ratio of the very first step at a tuned learning rate. Only there it is exactly
proportional to the rate, so one reading tells how many times too high the rate is."""
TARGET_UPDATE_RATIO = 0.02
"""The same some steps later, where it saturates."""
LEAST_FACTOR, MOST_FACTOR = 1 / 32, 1 / 2
"""One rung never lowers the learning rate more, or less, than this."""
REWARM_STEPS = 20
EPS_REWARM_STEPS = 60
"""Updates grow manifold with the right epsilon; measured, a short ramp was not enough."""
RAISE_FACTOR = 4.0
SKIP_BATCHES = 100
HEALTHY_EPS = 1e-8
CLIP_OVER_MEDIAN = 2.0
EXPLODED = 30.0
"""Gradient norm over its median that no bad batch was seen to cause; healthy logs reach 7.5."""
OUTGROWN = 2.5
"""Second-moment staleness from which on a change of data is one that Adam was not ready for."""
_EARLY = 60
"""Sickness that began before this step leaves nothing worth going back to but the beginning."""
_DONE = frozenset({"applied", "kept", "reverted"})


@dataclass(frozen=True)
class Remedy:
    """Interventions, and why."""

    interventions: tuple[Intervention, ...]
    why: str
    expected: str


@dataclass(frozen=True)
class Case:
    """An episode with what was tried for it."""

    window: Window
    episode: Episode

    @property
    def rung(self) -> int:
        """Remedies applied for this episode so far."""
        return sum(
            record.status in _DONE
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


def look_closer(case: Case) -> Remedy | None:
    """Evaluate, once, where that would tell damage from a passing disturbance."""
    asked = any(
        record.proposal.interventions == (Evaluate(),)
        and record.filed_step >= case.episode.onset_step
        for record in case.tried
    )
    if asked or not case.offers("evaluate"):
        return None
    return Remedy(
        (Evaluate(),),
        "the training loss does not tell whether the weights are hurt; the held-out loss does",
        "a held-out loss to hold against the last one before the onset",
    )


def go_back_and_lower_lr(case: Case) -> Remedy | NoProposal:
    """Go back and lower the learning rate towards a healthy update ratio, with a re-warm-up.

    The factor follows from the first step's ratio; where that was not seen, from a later one, which
    saturates where the rate is far too high, so it may take up to three rungs. Where logits grew,
    the rate got too high on the way: the first step's ratio is carried to the rate of now.
    """
    target = case.target(from_start=case.episode.kind in ("lr_too_high", "no_warmup"))
    if isinstance(target, NoProposal):
        return target
    factor, measured = 0.25, ""
    if case.episode.kind in ("lr_too_high", "no_warmup"):
        step, ratio = _telling_ratio(case)
        healthy = TARGET_FIRST_RATIO if step <= 1 else TARGET_UPDATE_RATIO
        if ratio > 0:
            factor = min(max(healthy / ratio, LEAST_FACTOR), MOST_FACTOR)
            measured = f" (update ratio {ratio:.3g} at step {step}, healthy {healthy:g})"
    elif first := _first_ratio_at_this_rate(case):
        factor = min(max(TARGET_FIRST_RATIO / first, LEAST_FACTOR), factor)
        measured = f" (at this rate the first step would move {first:.3g} of the weights)"
    factor = float(f"{factor:.3g}")
    return Remedy(
        (Rollback(checkpoint=target.id), ScaleLR(factor=factor), RewarmLR(steps=REWARM_STEPS)),
        f"the weights are damaged by a learning rate that is too high{measured}; lowering it in "
        f"place would not bring them back, so go back to step {target.step} and lower it there",
        "the update ratio stays below 0.1 and the loss falls below its present level",
    )


def _telling_ratio(case: Case) -> tuple[int, float]:
    """The earliest update ratio that the findings on this branch cite, with its step."""
    readings = [
        (cited.step, cited.value)
        for finding in case.window.findings
        if finding.branch == case.window.run.branch
        for cited in finding.evidence
        if cited.metric == metrics.UPDATE_RATIO
    ]
    return min(readings, default=(case.window.run.step, 0.0))


def _first_ratio_at_this_rate(case: Case) -> float | None:
    """The first step's update ratio, had its rate been the latest that the findings cite.

    There the ratio is proportional to the rate, so that a warm-up hides nothing.
    """
    cited = {
        (evidence.metric, evidence.step): evidence.value
        for finding in case.window.findings
        if finding.branch == case.window.run.branch
        for evidence in finding.evidence
    }
    rates = sorted((step, lr) for (metric, step), lr in cited.items() if metric == metrics.LR)
    if not rates:
        return None
    first, began = rates[0]
    ratio = cited.get((metrics.UPDATE_RATIO, first))
    if ratio is None or first > 1 or not began > 0:
        return None
    return ratio * rates[-1][1] / began


def go_back_and_restore_schedule(case: Case) -> Remedy | NoProposal:
    """Go back to before the jump and follow the declared plan, where there is one."""
    target = case.target()
    if isinstance(target, NoProposal):
        return target
    if not case.window.run.capabilities.lr_plan_declared:
        return go_back_only(case)  # what jumped need not jump again; the weights are lost anyway
    return Remedy(
        (Rollback(checkpoint=target.id), SetLR(value="plan")),
        "the learning rate jumped above its plan and the weights took it; putting it right in "
        f"place comes too late, so go back to step {target.step} and follow the plan",
        "the loss returns to its course before the jump",
    )


def restore_schedule(case: Case) -> Remedy | NoProposal:
    """Follow the declared plan, in place."""
    if not case.window.run.capabilities.lr_plan_declared:
        return case.no("unsupported", "the run declared no learning-rate plan to go back to")
    return Remedy(
        (SetLR(value="plan"),),
        "the learning rate fell below its plan; the weights are sound, so follow the plan from "
        "here without going back",
        "updates resume and the loss goes on falling",
    )


def go_back_and_skip(case: Case) -> Remedy | NoProposal:
    """Go back to before the data that did it, and leave that data out; more with every rung."""
    target = case.target()
    if isinstance(target, NoProposal):
        return target
    step = case.window.run.step
    skip = max(step - target.step, 0) + SKIP_BATCHES * 2**case.rung
    return Remedy(
        (Rollback(checkpoint=target.id, skip_batches=skip),),
        f"the loss left its course at step {case.episode.onset_step} and did not come back, with "
        "the learning rate on plan: the data is the likely cause, so go back to step "
        f"{target.step} and leave out {skip} batches",
        "the loss returns to its course and does not leave it at the same place",
    )


def go_back_and_contain(case: Case) -> Remedy | NoProposal:
    """Go back and clip where the gradients exploded, else leave the data out."""
    return go_back_and_clip(case) if _exploded(case) else go_back_and_skip(case)


def _exploded(case: Case) -> bool:
    """The gradient norm went far beyond what bad data does to it."""
    seen = next((s for s in case.window.summaries if s.metric == metrics.GRAD_NORM), None)
    if seen is None:
        return False
    healthy = case.figure("grad_norm_median") or seen.median
    return seen.non_finite > 0 or seen.maximum > EXPLODED * healthy


def go_back_and_clip(case: Case) -> Remedy | NoProposal:
    """Go back to before the gradients exploded, and clip them."""
    target = case.target()
    if isinstance(target, NoProposal):
        return target
    max_norm = _healthy_clip(case) / 2**case.rung
    max_norm = float(f"{max_norm:.2g}")
    return Remedy(
        (Rollback(checkpoint=target.id), SetGradClip(max_norm=max_norm)),
        f"the gradients exploded; go back to step {target.step} and clip them at {max_norm:g}, "
        "which lowering the learning rate alone did not replace where it was measured",
        "the gradient norm stays bounded and the loss finite",
    )


def _healthy_clip(case: Case) -> float:
    median = case.figure("grad_norm_median")
    return 1.0 if median is None or median <= 0 else min(CLIP_OVER_MEDIAN * median, 1.0)


def go_back_only(case: Case) -> Remedy | NoProposal:
    """Go back and play the same steps again: what happened there will not happen twice."""
    target = case.target()
    if isinstance(target, NoProposal):
        return target
    return Remedy(
        (Rollback(checkpoint=target.id),),
        f"the weights changed in a way the training did not ask for; go back to step {target.step}",
        "the same steps give a sound course",
    )


def restore_loss_scale(case: Case) -> Remedy | NoProposal:
    """Put the loss scale back to what the run began with."""
    knob = case.window.run.capabilities.knobs.get(metrics.LOSS_SCALE)
    if knob is None or not isinstance(knob.default, int | float):
        return case.no("unsupported", "the run registered no knob `loss_scale` to put right")
    if knob.value == knob.default:
        return case.no("waiting", "the loss scale is at its default already")
    return Remedy(
        (SetKnob(name=metrics.LOSS_SCALE, value=float(knob.default)),),
        f"gradients do not pass half precision at loss scale {knob.value}; no learning-rate or "
        f"optimizer action changes that, so put the scale back to {knob.default:g}",
        "updates are made again, and with all gradients",
    )


def restore_knobs(case: Case) -> Remedy | NoProposal:
    """Put back what stands off the value it had at the start, and no intervention moved."""
    ours = {
        intervention.name
        for record in case.window.history
        if record.status in _DONE
        for intervention in record.proposal.interventions
        if isinstance(intervention, SetKnob)
    }
    moved = {
        name: knob
        for name, knob in case.window.run.capabilities.knobs.items()
        if name not in ours and knob.value != knob.default
    }
    if not moved:
        return case.no("unsupported", f"{case.episode.reason}; no knob of the run would mend it")
    listed = ", ".join(f"{name} from {k.value} to {k.default}" for name, k in moved.items())
    return Remedy(
        tuple(SetKnob(name=name, value=knob.default) for name, knob in moved.items()),
        f"the weights are sound, and this stands off what the run began with; put back {listed}",
        "the cause is gone at the next step, and the held-out loss comes back",
    )


def calm_gradients(case: Case) -> Remedy | NoProposal:
    """Make Adam's moments afresh where gradients outgrew them, else clip from here on."""
    if _outgrown(case):
        return refresh_second_moment(case)
    max_norm = float(f"{_healthy_clip(case):.2g}")
    return Remedy(
        (SetGradClip(max_norm=max_norm),),
        f"gradients spike while the weights are sound; clip them at {max_norm:g}",
        "the gradient norm stays bounded",
    )


def _outgrown(case: Case) -> bool:
    stale = case.figure(metrics.SECOND_MOMENT_STALENESS)
    return stale is not None and stale >= OUTGROWN


def refresh_second_moment(case: Case) -> Remedy | NoProposal:
    """Let Adam forget what it knew of gradients that are no more, and ease into the new ones."""
    if not _outgrown(case):
        return case.no("cannot_tell", f"{case.episode.reason}, and no reading says so by now")
    return Remedy(
        (ResetOptimizerState(), RewarmLR(steps=REWARM_STEPS)),
        "Adam's second moment is of data that is over, so every update is far too large until it "
        "has caught up; going back would meet the same change of data again",
        "updates shrink at once and the loss falls from its new level",
    )


def name_the_source(case: Case) -> Remedy | NoProposal:
    """Leave the weights alone: who owns the data has to leave that part of it out."""
    reason = f"{case.episode.reason}; leave that source out, or mend it"
    return case.no("unsupported", reason)


def point_at_the_best(case: Case) -> Remedy | NoProposal:
    """Tell a person where the run was best: whether to end it there is not an agent's choice."""
    good = [c for c in case.window.checkpoints if c.good and c.step <= case.episode.onset_step]
    best = f"; the state nearest to it is {good[-1].id} of step {good[-1].step}" if good else ""
    reason = f"{case.episode.reason}{best}; whether to end the run there is a person's choice"
    return case.no("unsupported", reason)


def restore_epsilon(case: Case) -> Remedy | NoProposal:
    """Put Adam's epsilon to where it does not hold the updates back, and ease into it."""
    setting = case.window.run.capabilities.settings.get("optimizer.eps")
    share = case.figure(metrics.EPS_SHARE)
    if setting is None or share is None or share < 0.5:
        return case.no("cannot_tell", "updates have no effect, and epsilon is not the reason")
    return Remedy(
        (SetOptimizer(name="eps", value=HEALTHY_EPS), RewarmLR(steps=EPS_REWARM_STEPS)),
        f"epsilon {setting.value} exceeds the root of the second moment for {share:.0%} of the "
        "parameters, which are hardly updated at all",
        "the update ratio rises and the loss falls faster",
    )


def raise_lr(case: Case) -> Remedy | NoProposal:
    """Raise a learning rate that is far too low, in place."""
    ratio = case.figure(metrics.UPDATE_RATIO)
    if ratio is None or ratio <= 0:
        return case.no("cannot_tell", "the update ratio is not known")
    factor = min(RAISE_FACTOR, TARGET_UPDATE_RATIO / ratio)
    if factor < 1.5:
        return case.no("benign", f"the update ratio {ratio:.3g} is healthy by now")
    factor = float(f"{factor:.3g}")
    return Remedy(
        (ScaleLR(factor=factor),),
        f"updates are {ratio:.2g} of the weights where {TARGET_UPDATE_RATIO:g} is healthy, and "
        "the loss falls steadily, far above its noise: the learning rate is far too low",
        "the loss falls faster",
    )
