"""A sick run as an agent is shown it, and answers that fit it."""

from collections.abc import Sequence
from typing import Any

from autopilot.schema import (
    INTERVENTION_TYPES,
    Capabilities,
    CheckpointInfo,
    Episode,
    Evidence,
    Finding,
    ProposalRecord,
    Row,
    RunInfo,
    Setting,
    Window,
)
from autopilot.window import summarise, tail_dense

EVERYTHING = tuple(INTERVENTION_TYPES)
STEP, ONSET = 200, 189
METRICS = ("loss", "val_loss", "grad_norm", "lr", "lr_planned", "update_ratio",
           "second_moment_staleness", "step_time")  # fmt: skip


def capabilities(**changes: Any) -> Capabilities:
    scale = Setting(name="loss_scale", value=2.0**20, default=2.0**10, minimum=1, maximum=2.0**24)
    given: dict[str, Any] = {
        "interventions": EVERYTHING,
        "settings": {
            "optimizer.eps": Setting(name="optimizer.eps", value=1e-8),
            "lr": Setting(name="lr", value=0.01),
            "lr_plan": Setting(name="lr_plan", value=0.01),
            "lr_factor_min": Setting(name="lr_factor_min", value=1.0),
            "lr_factor_max": Setting(name="lr_factor_max", value=1.0),
        },
        "knobs": {"loss_scale": scale},
        "actions": {"reshuffle": {"seed": "int"}},
        "lr_plan_declared": True,
    }
    return Capabilities(**{**given, **changes})


def rows(names: Sequence[str] = METRICS) -> list[Row]:
    return [
        Row(step, {name: 2.0 + 0.01 * ((step + i) % 7) if step < ONSET else 9.0 + 0.001 * step
                   for i, name in enumerate(names)})
        for step in range(1, STEP + 1)
    ]  # fmt: skip


def run_info(**changes: Any) -> RunInfo:
    given: dict[str, Any] = {
        "name": "gpt-small", "run_id": "r1", "status": "running", "step": STEP, "steps": 1000,
        "state_version": 3, "seq": 40, "started": 0.0, "capabilities": capabilities(),
        "policy_digest": "p", "autonomy": "act", "llm_usd_per_day": 5.0,
    }  # fmt: skip
    return RunInfo(**{**given, **changes})


def finding(**changes: Any) -> Finding:
    given: dict[str, Any] = {
        "kind": "loss_spike", "tier": "alarm", "severity": "error", "metric": "loss",
        "step": ONSET, "score": 9.0, "message": "loss left its course", "detector": "d",
        "id": "F1", "evidence": (Evidence(metric="loss", step=ONSET, value=9.0 + 0.001 * ONSET),),
    }  # fmt: skip
    return Finding(**{**given, **changes})


def episode(**changes: Any) -> Episode:
    given: dict[str, Any] = {
        "id": "e1", "branch": "main", "kind": "loss_spike", "diagnosis": "damaged",
        "severity": "error", "status": "open", "alarm": True, "invariant_broken": False,
        "onset_step": ONSET, "last_step": STEP, "findings": ("F1",),
        "fingerprint": {"loss": 9.2, "update_ratio": 0.2}, "reason": "it did not recover",
    }  # fmt: skip
    return Episode(**{**given, **changes})


def window(
    *,
    run: RunInfo | None = None,
    seen: Episode | None = None,
    findings: Sequence[Finding] | None = None,
    history: Sequence[ProposalRecord] = (),
    held: Sequence[CheckpointInfo] | None = None,
    names: Sequence[str] = METRICS,
) -> Window:
    found = rows(names)
    states = [checkpoint(s, good=s < ONSET) for s in (0, 100, 150, 180, 195)]
    return Window(
        run=run or run_info(),
        episode=seen or episode(),
        findings=tuple(findings if findings is not None else (finding(),)),
        summaries=tuple(summarise(name, found) for name in names),
        table=tail_dense(found, names),
        checkpoints=tuple(held if held is not None else states),
        history=tuple(history),
    )


def checkpoint(step: int, *, good: bool = True, **changes: Any) -> CheckpointInfo:
    given: dict[str, Any] = {
        "id": f"s{step}", "step": step, "branch": "main", "kind": "snapshot", "good": good
    }  # fmt: skip
    return CheckpointInfo(**{**given, **changes})


def answer(**changes: Any) -> dict[str, Any]:
    """What every action says, with figures that were shown."""
    return {
        "diagnosis": "damaged", "rationale": "loss@195=9.195 stays up, so the weights took it",
        "evidence": ["loss@195=9.195"], "expected_effect": "the loss returns to its course",
        **changes,
    }  # fmt: skip


def change(kind: str, said: dict[str, Any] | None = None, **given: Any) -> tuple[str, Any]:
    """A call that proposes a change of that kind with these parameters."""
    return "propose", {**(answer() if said is None else said), "change": {"kind": kind, **given}}


def waiting(**changes: Any) -> dict[str, Any]:
    return {"rationale": "too early to tell", "why": "not_yet", **changes}


BACK = change("go_back", checkpoint="s180", lr_factor=0.25, rewarm_steps=20)
WAIT = ("wait", waiting())
