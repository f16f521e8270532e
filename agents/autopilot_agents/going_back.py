"""Remedies for weights that are damaged: back to a good state, with the cause out of the way."""

from autopilot.schema import (
    NoProposal,
    RewarmLR,
    Rollback,
    ScaleLR,
    SetGradClip,
    SetLR,
    metrics,
)
from autopilot_agents.case import REWARM_STEPS, Case, Remedy

TARGET_FIRST_RATIO = 0.045
"""Update-to-weight ratio of the very first step at a tuned learning rate. Only there it is exactly
proportional to the rate, so one reading tells how many times too high the rate is."""
TARGET_UPDATE_RATIO = 0.02
"""The same some steps later, where it saturates."""
LEAST_FACTOR, MOST_FACTOR = 1 / 32, 1 / 2
"""One rung never lowers the learning rate more, or less, than this."""
SKIP_BATCHES = 100
EXPLODED = 30.0
"""Gradient norm over its median that no bad batch was seen to cause; healthy logs reach 7.5."""


def go_back_and_lower_lr(case: Case) -> Remedy | NoProposal:
    """Go back and lower the learning rate towards a healthy update ratio, with a re-warm-up.

    The factor follows from the first step's ratio; where that was not seen, from a later one, which
    saturates where the rate is far too high, so it may take up to three rungs. Where the rate got
    too high on the way, as after a warm-up, the first step's ratio is carried to the rate of now.
    """
    target = case.target(from_start=case.episode.kind in ("lr_too_high", "no_warmup"))
    if isinstance(target, NoProposal):
        return target
    factor, measured = 0.25, ""
    if first := _first_ratio_at_this_rate(case):
        factor = min(max(TARGET_FIRST_RATIO / first, LEAST_FACTOR), factor)
        measured = f" (at this rate the first step would move {first:.3g} of the weights)"
    elif case.episode.kind in ("lr_too_high", "no_warmup"):
        step, ratio = _telling_ratio(case)
        healthy = TARGET_FIRST_RATIO if step <= 1 else TARGET_UPDATE_RATIO
        if ratio > 0:
            factor = min(max(healthy / ratio, LEAST_FACTOR), MOST_FACTOR)
            measured = f" (update ratio {ratio:.3g} at step {step}, healthy {healthy:g})"
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
    max_norm = case.healthy_clip() / 2**case.rung
    max_norm = float(f"{max_norm:.2g}")
    return Remedy(
        (Rollback(checkpoint=target.id), SetGradClip(max_norm=max_norm)),
        f"the gradients exploded; go back to step {target.step} and clip them at {max_norm:g}, "
        "which lowering the learning rate alone did not replace where it was measured",
        "the gradient norm stays bounded and the loss finite",
    )


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
