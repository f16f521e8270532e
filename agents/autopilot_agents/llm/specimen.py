"""A made-up episode, to try a model on; nothing of any run is in it."""

from autopilot.schema import (
    Capabilities,
    CheckpointInfo,
    Episode,
    Evidence,
    Finding,
    Row,
    RunInfo,
    Setting,
    Window,
    metrics,
)
from autopilot.window import summarise, tail_dense

_STEPS, _ONSET = 240, 229
_PLANNED, _STUCK = 0.01, 0.0
_SHOWN = (metrics.LOSS, metrics.GRAD_NORM, metrics.LR, metrics.LR_PLANNED, metrics.UPDATE_RATIO)


def specimen() -> Window:
    """A learning rate that fell to nothing where its plan says otherwise: misdriven, and plain."""
    rows = [Row(step, _values(step)) for step in range(1, _STEPS + 1)]
    finding = Finding(
        kind="schedule_fault", tier="invariant", severity="error", metric=metrics.LR,
        step=_ONSET, score=1.0, message="the learning rate in force is not the planned one",
        detector="schedule_fault", id="F1", episode="E1",
        evidence=(Evidence(metric=metrics.LR, step=_STEPS, value=_STUCK),
                  Evidence(metric=metrics.LR_PLANNED, step=_STEPS, value=_PLANNED)),
    )  # fmt: skip
    episode = Episode(
        id="E1", branch="main", kind="schedule_fault", diagnosis="misdriven", severity="error",
        status="open", alarm=False, invariant_broken=True, onset_step=_ONSET, last_step=_STEPS,
        findings=("F1",), reason="the learning rate in force is below its plan",
    )  # fmt: skip
    return Window(
        run=_run(),
        episode=episode,
        findings=(finding,),
        summaries=tuple(summarise(name, rows) for name in _SHOWN),
        table=tail_dense(rows, _SHOWN),
        checkpoints=tuple(
            CheckpointInfo(id=f"s{s}", step=s, branch="main", kind="snapshot", good=s < _ONSET)
            for s in (0, 100, 200, 235)
        ),
    )


def _values(step: int) -> dict[str, float]:
    stuck = step >= _ONSET
    return {
        metrics.LOSS: round(2.0 + 2.0 / min(step, _ONSET) + 0.01 * (step % 5), 4),
        metrics.GRAD_NORM: round(0.5 + 0.02 * (step % 7), 3),
        metrics.LR: _STUCK if stuck else _PLANNED,
        metrics.LR_PLANNED: _PLANNED,
        metrics.UPDATE_RATIO: 0.0 if stuck else 0.015,
    }


def _run() -> RunInfo:
    can = Capabilities(
        interventions=("set_lr", "scale_lr", "rollback", "evaluate"),
        settings={"lr": Setting(name="lr", value=_STUCK),
                  "lr_plan": Setting(name="lr_plan", value=_PLANNED)},
        lr_plan_declared=True,
    )  # fmt: skip
    return RunInfo(
        name="specimen", run_id="specimen", status="running", step=_STEPS, steps=1000,
        state_version=0, seq=0, started=0.0, capabilities=can, policy_digest="",
        autonomy="suggest", llm_usd_per_day=1.0,
    )  # fmt: skip
