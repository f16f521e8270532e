"""Policies, interventions and proposals as hypothesis draws them, from mild to absurd."""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopilot.policy import (
    ApprovalTerms,
    Breaker,
    Budget,
    CanaryTerms,
    Cooldown,
    GradClipLimits,
    InterventionBudget,
    LearningRateLimits,
    Limits,
    PerDay,
    Policy,
    Reflexes,
    Rule,
    Where,
)
from autopilot.schema import (
    INTERVENTION_TYPES,
    CallAction,
    Canary,
    Capabilities,
    CheckpointInfo,
    Evaluate,
    Freeze,
    Intervention,
    ModuleInfo,
    Note,
    Pause,
    Proposal,
    ResetModule,
    ResetOptimizerState,
    Resume,
    RewarmLR,
    Rollback,
    SaveCheckpoint,
    ScaleLR,
    SetBatch,
    SetGradClip,
    SetKnob,
    SetLR,
    SetModule,
    SetOptimizer,
    Setting,
    SkipBatches,
    StartBranch,
    Stop,
    SwitchBranch,
    Unfreeze,
)

PLAN = 0.01
AGENTS = ("agent:a", "agent:b")

_kinds = st.lists(st.sampled_from(sorted(INTERVENTION_TYPES)), min_size=1, max_size=5)
_wheres = st.builds(
    Where,
    alarm=st.none() | st.booleans(),
    invariant_broken=st.none() | st.booleans(),
    diagnosis=st.none() | st.sampled_from(["damaged", "misdriven", "benign", "unknown"]),
    damaged=st.none() | st.booleans(),
    evidence_verified=st.none() | st.booleans(),
    target=st.none() | st.sampled_from(["good", "any"]),
    steps_back_max=st.none() | st.integers(0, 500),
    actor=st.none() | st.sampled_from([*AGENTS, "agent:", "human:"]),
)
_rules = st.builds(
    Rule,
    name=st.integers(0, 99).map("rule {}".format),
    kinds=_kinds.map(tuple) | st.just(("*",)),
    where=st.just(Where()) | _wheres,
    verdict=st.sampled_from(["allow", "ask", "deny"]),
)
_learning_rates = st.builds(
    LearningRateLimits,
    min=st.sampled_from([1e-9, 1e-5, 1e-3]) | st.floats(1e-9, 5e-3),
    max_factor=st.sampled_from([1.5, 2.0, 4.0]) | st.floats(1.01, 8),
    total_factor=st.tuples(st.floats(0.01, 1), st.floats(1, 16)),
)


policies = st.builds(
    Policy,
    autonomy=st.sampled_from(["act", "act", "act", "suggest", "observe"]),
    default=st.sampled_from(["allow", "allow", "ask", "deny"]),
    limits=st.builds(
        Limits,
        lr=_learning_rates,
        grad_clip=st.builds(GradClipLimits, min=st.floats(0.01, 5)),
    ),
    budget=st.builds(
        Budget,
        interventions=st.builds(
            InterventionBudget, per_1000_steps=st.integers(0, 6), per_day=st.integers(0, 9)
        ),
        rollbacks=st.builds(PerDay, per_day=st.integers(0, 3)),
        skipped_batches=st.builds(PerDay, per_day=st.integers(0, 100)),
    ),
    cooldown=st.builds(
        Cooldown,
        steps=st.sampled_from([0, 0, 20, 100, 1500]),
        same_episode=st.sampled_from([0, 5, 30]),
        quiet=st.sampled_from([(), ("evaluation",), ("warmup", "evaluation", "checkpoint")]),
    ),
    rules=st.lists(_rules, max_size=5).map(tuple),
    approval=st.builds(
        ApprovalTerms,
        ttl=st.sampled_from([60.0, 900.0]),
        on_expiry=st.sampled_from(["nothing", "hold", "allow_reversible"]),
    ),
    canary=st.builds(CanaryTerms, steps=st.sampled_from([5, 200])),
    breaker=st.builds(Breaker, failed_canaries=st.integers(1, 2)),
    reflexes=st.just(Reflexes(hold_on_alarm=0.0)),
)
"""Policies of every sort; small budgets, so that they are met."""

lively = st.builds(
    Policy.model_copy,
    policies,
    update=st.fixed_dictionaries(
        {
            "autonomy": st.sampled_from(["act", "act", "act", "suggest"]),
            "default": st.sampled_from(["allow", "allow", "ask"]),
            "limits": st.builds(
                Limits,
                lr=st.builds(
                    LearningRateLimits,
                    min=st.sampled_from([1e-9, 1e-3]),
                    max_factor=st.sampled_from([2.0, 4.0]),
                    total_factor=st.sampled_from([(0.02, 16.0), (0.2, 2.0)]),
                ),
                grad_clip=st.builds(GradClipLimits, min=st.just(0.1)),
            ),
            "budget": st.builds(
                Budget,
                interventions=st.builds(
                    InterventionBudget,
                    per_1000_steps=st.integers(2, 8),
                    per_day=st.integers(3, 12),
                ),
                rollbacks=st.builds(PerDay, per_day=st.integers(1, 4)),
                skipped_batches=st.builds(PerDay, per_day=st.integers(20, 100)),
            ),
            "cooldown": st.builds(
                Cooldown,
                steps=st.sampled_from([0, 0, 0, 5, 100]),
                same_episode=st.sampled_from([0, 5]),
                quiet=st.just(("evaluation",)),
            ),
            "rules": st.just(()) | st.lists(_rules, max_size=2).map(tuple),
        }
    ),
)
"""Policies under which an agent often gets to act."""


_groups = st.none() | st.sampled_from([(0,), (1,), (0, 1), (7,)])
_factors = st.sampled_from([0.001, 0.1, 0.5, 0.9, 1.0, 1.1, 2.0, 4.0, 1000.0]) | st.floats(
    0.001, 1000
)
_names = st.sampled_from(["m", "frozen", "gone"])
_states = st.sampled_from(["last_good", "c0", "c1", "gone"])
_counts = st.sampled_from([1, 5, 30, 100, 1_000_000])

BY_KIND: dict[str, Any] = {
    "scale_lr": st.builds(ScaleLR, factor=_factors, groups=_groups),
    "set_lr": st.builds(
        SetLR,
        value=st.sampled_from(["plan", "schedule", 1e-300, 1e300])
        | _factors.map(lambda f: f * PLAN),
        groups=_groups,
    ),
    "rewarm_lr": st.builds(RewarmLR, steps=st.sampled_from([0, 20, 100_000])),
    "set_optimizer": st.builds(
        SetOptimizer,
        name=st.sampled_from(["eps", "betas", "momentum"]),
        value=st.sampled_from([1e-8, 0.0, 1e300, True, (0.9, 0.99), (5.0, -1.0), "schedule"]),
        groups=_groups,
    ),
    "set_grad_clip": st.builds(
        SetGradClip,
        max_norm=st.sampled_from([None, 1e-300, 0.01, 1.0, 1e300]) | st.floats(1e-3, 10),
    ),
    "reset_optimizer_state": st.builds(ResetOptimizerState),
    "rollback": st.builds(
        Rollback, checkpoint=_states, skip_batches=st.just(0) | _counts
    ),
    "skip_batches": st.builds(SkipBatches, count=_counts),
    "set_module": st.builds(
        SetModule,
        module=_names,
        name=st.sampled_from(["p", "eps"]),
        value=st.sampled_from([0.0, 0.5, 1.5, 1e300]),
    ),
    "reset_module": st.builds(ResetModule, module=_names),
    "freeze": st.builds(Freeze, module=_names),
    "unfreeze": st.builds(Unfreeze, module=_names),
    "set_batch": st.builds(SetBatch, accumulation=st.sampled_from([1, 4, 65_536])),
    "branch": st.builds(
        StartBranch, name=st.sampled_from(["main", "left", "right"]), checkpoint=st.none() | _states
    ),
    "switch_branch": st.builds(SwitchBranch, name=st.sampled_from(["main", "left", "gone"])),
    "evaluate": st.just(Evaluate()),
    "save_checkpoint": st.just(SaveCheckpoint()),
    "pause": st.just(Pause()),
    "resume": st.just(Resume()),
    "stop": st.just(Stop()),
    "set_knob": st.builds(
        SetKnob,
        name=st.sampled_from(["temperature", "free", "gone"]),
        value=st.sampled_from([1.0, 0.5, 0.49, 2, 2.01, -1e300, 10**400, True, "hot"])
        | st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    ),
    "call_action": st.builds(CallAction, name=st.sampled_from(["a", "gone"])),
    "note": st.just(Note(text="so")),
}  # fmt: skip
"""Interventions of each kind, with values within bounds and far out of them."""

interventions: "st.SearchStrategy[Intervention]" = st.one_of(
    BY_KIND["scale_lr"], BY_KIND["set_lr"], *BY_KIND.values()
)
_mild_scales = st.builds(
    ScaleLR,
    factor=st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.5, 2.0, 4.0]),
    groups=st.sampled_from([None, None, (0,)]),
)
mild: "st.SearchStrategy[Intervention]" = st.one_of(
    _mild_scales,
    _mild_scales,
    _mild_scales,
    st.builds(SetLR, value=st.sampled_from(["plan", 0.1 * PLAN, 2 * PLAN]), groups=st.none()),
    st.builds(SetGradClip, max_norm=st.sampled_from([None, 0.5, 5.0])),
    st.builds(Rollback, checkpoint=st.just("c0"), skip_batches=st.sampled_from([0, 5, 30])),
    st.builds(SkipBatches, count=st.sampled_from([1, 30])),
    st.sampled_from([Pause(), Resume(), Note(text="so")]),
)
"""Interventions that most policies let through now and then."""

several = st.lists(interventions, min_size=1, max_size=3).map(tuple)
proposals = st.builds(
    Proposal,
    interventions=several,
    episode=st.sampled_from([None, "e1", "e2"]),
    canary=st.none() | st.builds(Canary, steps=st.integers(1, 20)),
)


def hold(claim: Callable[..., None], *draws: "st.SearchStrategy[Any]", examples: int) -> None:
    """Try a claim on so many draws of its arguments."""
    calmly = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    terms = settings(max_examples=examples, deadline=None, suppress_health_check=calmly)
    terms(given(*draws)(claim))()


def capabilities(
    factors: Sequence[float],
    *,
    plan: float = PLAN,
    scheduled: float = PLAN,
    knob: float = 1.0,
    branches: Sequence[str] = ("main",),
    frozen: Sequence[str] = (),
) -> Capabilities:
    """A run that offers everything, with its groups at those factors over the plan."""
    figures = {
        "lr": plan * factors[0],
        "lr_plan": plan,
        "lr_scheduled": scheduled,
        "lr_factor_min": min(factors),
        "lr_factor_max": max(factors),
        "optimizer.groups": len(factors),
        "optimizer.eps": 1e-8,
    }
    settings = {name: Setting(name=name, value=value) for name, value in figures.items()}
    settings["optimizer.eps"] = Setting(name="eps", value=1e-8, minimum=1e-12, maximum=0.1)
    settings["optimizer.betas"] = Setting(name="betas", value=None, type="pair")
    settings["accumulation"] = Setting(name="accumulation", value=1, minimum=1, type="int")
    dropout = Setting(name="p", value=0.1, minimum=0, maximum=0.95)
    module = ModuleInfo(type="M", parameters=9, trained=9, resettable=True, settings={"p": dropout})
    return Capabilities(
        interventions=tuple(INTERVENTION_TYPES),
        settings=settings,
        knobs={
            "temperature": Setting(name="temperature", value=knob, minimum=0.5, maximum=2.0),
            "free": Setting(name="free", value=1.0),
        },
        actions={"a": {}},
        modules={"m": module, "frozen": module},
        frozen=tuple(frozen),
        branches={name: None if name == branches[-1] else "c0" for name in branches},
        lr_plan_declared=True,
    )


def checkpoint(name: str, step: int, *, good: bool) -> CheckpointInfo:
    return CheckpointInfo(id=name, step=step, branch="main", kind="snapshot", good=good)
