"""A window of a run with one symptom, made up from what people said they saw."""

from math import inf, sin
from typing import Literal

from autopilot.schema import (
    INTERVENTION_TYPES,
    MAIN,
    Capabilities,
    CheckpointInfo,
    Diagnosis,
    Episode,
    Evidence,
    Finding,
    FindingKind,
    Proposal,
    ProposalRecord,
    Receipt,
    Rollback,
    Row,
    RunInfo,
    Setting,
    Verdict,
    Window,
)
from autopilot.schema.base import Number, Record
from autopilot.schema.metrics import LOSS
from autopilot.window import SHOWN, summarise, tail_dense

FIRST, ONSET, LAST = 9_800, 9_970, 10_000
_RIPPLE = 0.01


class Symptom(Record):
    """What was seen, as triage would have named it.

    Attributes:
        course: How the figures went from before to now: at once and back again (still falling),
            at once and staying, slowly, or to no number.
        signals: Before and now, by metric.
        tried: Times that going back was tried for it already.
    """

    kind: FindingKind
    diagnosis: Diagnosis
    course: Literal["back", "stays", "slow", "nan"] = "stays"
    signals: dict[str, tuple[Number, Number]]
    tried: int = 0


def window_of(symptom: Symptom | None) -> Window:
    """The window an agent would have been shown; without an episode where nothing showed."""
    rows = [_row(step, symptom) for step in range(FIRST, LAST + 1)]
    names = [name for name in SHOWN if name in rows[0].values]
    return Window(
        run=_run(rows[-1]),
        episode=_episode(symptom, rows[-1]) if symptom is not None else None,
        findings=(_finding(symptom, rows),) if symptom is not None else (),
        summaries=tuple(summarise(name, rows) for name in names),
        table=tail_dense(rows, names),
        checkpoints=_CHECKPOINTS,
        history=_history(symptom.tried) if symptom is not None else (),
    )


def _row(step: int, symptom: Symptom | None) -> Row:
    if symptom is None:
        return Row(step, {LOSS: 2.0 * (1.0 + _RIPPLE * sin(step))})
    share = _share(step, symptom.course)
    values = {}
    for name, (before, now) in symptom.signals.items():
        value = now if share >= 1.0 else before + share * (now - before) if share else before
        values[name] = value * (1.0 + _RIPPLE * sin(step)) if name == LOSS else value
    return Row(step, values)


def _share(step: int, course: str) -> float:
    """How far the figures have gone from before to now, as a share."""
    if step < ONSET:
        return 0.0
    if course == "slow":
        return (step - ONSET) / (LAST - ONSET)
    if course == "back":
        return 1.0 if step == LAST - 8 else 0.0 if step < LAST - 8 else 0.5 ** (step - LAST + 8)
    return 1.0


def _finding(symptom: Symptom, rows: list[Row]) -> Finding:
    metric = LOSS if LOSS in symptom.signals else next(iter(symptom.signals))
    last = rows[-1]
    return Finding(
        kind=symptom.kind,
        tier="alarm",
        severity="error",
        metric=metric,
        step=LAST,
        score=9.0,
        message=f"{metric} went from {symptom.signals[metric][0]} to {last.values[metric]:.4g}",
        evidence=(Evidence(metric=metric, step=LAST, value=last.values[metric]),),
        detector="review",
        id="F1",
        episode="ep-0001",
    )


def _episode(symptom: Symptom, last: Row) -> Episode:
    before = symptom.signals.get("grad_norm")
    figures = {"grad_norm_median": before[0]} if before is not None else {}
    return Episode(
        id="ep-0001",
        branch=MAIN,
        kind=symptom.kind,
        diagnosis=symptom.diagnosis,
        severity="error",
        status="open",
        alarm=True,
        invariant_broken=False,
        onset_step=LAST - 8 if symptom.course == "back" else ONSET,
        last_step=LAST,
        findings=("F1",),
        fingerprint={**last.values, **figures},
        reason=f"{symptom.kind}, {symptom.course}",
    )


def _run(last: Row) -> RunInfo:
    scale = Setting(name="loss_scale", value=65536.0, default=65536.0, minimum=1.0, maximum=2.0**32)
    return RunInfo(
        name="reviewed",
        run_id="reviewed",
        status="running",
        step=LAST,
        state_version=1,
        seq=1,
        started=0.0,
        capabilities=Capabilities(
            interventions=tuple(INTERVENTION_TYPES),
            knobs={"loss_scale": scale},
            lr_plan_declared=True,
        ),
        policy_digest="reviewed",
        autonomy="act",
        last_values=last.values,
        llm_usd_per_day=inf,  # nobody's run pays for it: the money is who evaluates's own
    )


_CHECKPOINTS = tuple(
    CheckpointInfo(
        id=f"d{step}", step=step, branch=MAIN, kind="durable", good=step < ONSET, cursor=step
    )
    for step in (0, 9_000, 9_500, 9_900, 9_950, 9_990)
)


def _history(tried: int) -> tuple[ProposalRecord, ...]:
    """Goings back that were applied for the same episode before."""
    return tuple(
        ProposalRecord(
            id=f"P{number}",
            proposal=Proposal(
                interventions=(Rollback(checkpoint="d9950"),),
                episode="ep-0001",
                rationale="earlier",
            ),
            actor="human:operator",
            digest="reviewed",
            filed_at=0.0,
            filed_step=ONSET,
            status="kept",
            verdict=Verdict(decision="allow", rule="reviewed", reason="earlier"),
            receipt=Receipt(command=f"P{number}", step=ONSET, branch=MAIN, changes=()),
        )
        for number in range(1, tried + 1)
    )
