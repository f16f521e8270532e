"""Remedies for weights that are sound and misdriven: the setting is put right in place."""

import math

from autopilot.schema import (
    Canary,
    Evaluate,
    NoProposal,
    ResetOptimizerState,
    RewarmLR,
    ScaleLR,
    SetGradClip,
    SetKnob,
    SetLR,
    SetOptimizer,
    metrics,
)
from autopilot_agents.case import DONE, REWARM_STEPS, Case, Remedy
from autopilot_agents.going_back import TARGET_UPDATE_RATIO

EPS_REWARM_STEPS = 60
"""Updates grow manifold with the right epsilon; measured, a short ramp was not enough."""
RAISE_FACTOR = 4.0
CANARY_STEPS = 200
HELD_OUT_ROOM = 0.03
"""Share by which a held-out loss may rise without meaning it; seeds differ by less."""
EXCLUDE_SOURCE = "exclude_source"
"""The knob by which a loop offers to leave out one of its sources, by name."""
HEALTHY_EPS = 1e-8
HEALTHY_DECAY_RATE = 1e-4
"""Share of the weights that decay may take a step: a memory of ten thousand steps."""
OUTGROWN = 2.5
"""Second-moment staleness from which on a change of data is one that Adam was not ready for."""


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
        if record.status in DONE
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
    max_norm = float(f"{case.healthy_clip():.2g}")
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


def leave_out_source(case: Case) -> Remedy | NoProposal:
    """Leave out the source that the loss is off on, where the loop offers to; else name it."""
    source = case.episode.source
    knob = case.window.run.capabilities.knobs.get(EXCLUDE_SOURCE)
    offered = knob.choices if knob is not None and knob.choices is not None else ()
    if knob is None or source not in offered or knob.value != knob.default:
        reason = f"{case.episode.reason}; leave that source out, or mend it"
        return case.no("unsupported", reason)
    return Remedy(
        (SetKnob(name=EXCLUDE_SOURCE, value=source),),
        f"what the model learns of the other sources is contradicted by {source!r}; the weights "
        "are sound, so leave that source out from here on",
        "the training loss falls to that of the other sources, and the held-out loss with it",
        _held_out_canary(case),
    )


def _held_out_canary(case: Case) -> Canary | None:
    """Hold the next evaluations against the last one: other data has another training loss."""
    seen = {summary.metric: summary for summary in case.window.summaries}
    loss, held_out = seen.get(metrics.LOSS), seen.get(metrics.VAL_LOSS)
    if loss is None or held_out is None or not math.isfinite(held_out.last):
        return None
    between = math.ceil(loss.count / held_out.count)
    bound = held_out.last + HELD_OUT_ROOM * abs(held_out.last)
    return Canary(metric=metrics.VAL_LOSS, steps=max(CANARY_STEPS, 2 * between), bound=bound)


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


def slow_decay(case: Case) -> Remedy | NoProposal:
    """Make weight decay so slow that weights remember ten thousand steps, in place."""
    setting = case.window.run.capabilities.settings.get("optimizer.weight_decay")
    rate = case.figure(metrics.WEIGHT_DECAY_RATE)
    decay = None if setting is None else setting.value
    if rate is None or not isinstance(decay, int | float) or not decay > 0:
        return case.no("unsupported", f"{case.episode.reason}; its decay is not known here")
    if rate <= HEALTHY_DECAY_RATE:
        return case.no("benign", f"decay takes {rate:.2g} of the weights a step by now")
    value = float(f"{decay * HEALTHY_DECAY_RATE / rate:.2g}")
    return Remedy(
        (SetOptimizer(name="weight_decay", value=value),),
        f"weight decay {decay:g} takes {rate:.2g} of the weights at every step; the weights are "
        f"sound but cannot hold what they learn, so lower it to {value:g} in place",
        "the norm of the parameters grows and the loss falls from its level",
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
