"""What a policy comes to: example situations, each judged by the guard itself.

Nothing here knows what a rule means. The examples go through every combination of the facts that
the policy's rules can tell apart, so what they show is all that an agent's single intervention can
meet, as long as no limit, budget or cool-down is in its way.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from autopilot.guard import DAY, PER_STEPS, Past, Situation, review
from autopilot.policy import Policy
from autopilot.schema import (
    Capabilities,
    CheckpointInfo,
    Diagnosis,
    Episode,
    Intervention,
    ModuleInfo,
    Proposal,
    Rollback,
    ScaleLR,
    SetGradClip,
    Setting,
    SkipBatches,
    Stop,
    Verdict,
    intervention_adapter,
)
from autopilot.schema.interventions import INTERVENTION_TYPES

_NOW = 1e9
_AGENT = "agent:~"
"""An agent that no rule names."""
_TARGET = "c"

_VALUES: dict[str, tuple[dict[str, object], ...]] = {
    "scale_lr": ({"factor": 1.0},),
    "set_lr": ({"value": "plan"},),
    "rewarm_lr": ({"steps": 0},),
    "set_optimizer": ({"name": "eps", "value": 1e-8},),
    "set_grad_clip": ({"max_norm": None},),
    "rollback": ({"checkpoint": _TARGET},),
    "skip_batches": ({"count": 1},),
    "set_module": ({"module": "m", "name": "p", "value": 0.5},),
    "reset_module": ({"module": "m"},),
    "freeze": ({"module": "m"},),
    "unfreeze": ({"module": "frozen"},),
    "set_batch": ({"accumulation": 1},),
    "branch": ({"name": "new"}, {"name": "new", "checkpoint": _TARGET}),
    "switch_branch": ({"name": "other"},),
    "set_knob": ({"name": "k", "value": 1.0},),
    "call_action": ({"name": "a"},),
    "note": ({"text": "n"},),
}
"""The mildest values of each kind that takes any."""


@dataclass(frozen=True)
class Consequence:
    """One example: what is proposed, in which situation, and what the guard says.

    Attributes:
        case: The situation in words.
    """

    case: str
    proposal: Proposal
    situation: Situation
    history: tuple[Past, ...]
    verdict: Verdict


def by_kind(policy: Policy) -> dict[str, list[Consequence]]:
    """For each kind every verdict an agent can meet, each with the plainest case that leads there.

    Two verdicts are the same where the decision and the rule are. A case without any fact stands
    last: ``always`` where nothing else decides, else ``otherwise``.
    """
    situations = sorted(_situations(policy), key=lambda found: len(found[0]))
    plain = [found for found in situations if not found[2]]
    found: dict[str, list[Consequence]] = {}
    for kind in INTERVENTION_TYPES:
        seen: dict[tuple[str, str], Consequence] = {}
        for intervention in _examples(kind):
            proposal = Proposal(interventions=(intervention,), episode="e")
            goes = any(value == _TARGET for value in intervention.model_dump().values())
            for facts, situation, _ in situations if goes or kind == "switch_branch" else plain:
                verdict = review(policy, proposal, situation)
                example = Consequence(", ".join(facts), proposal, situation, (), verdict)
                seen.setdefault((verdict.decision, verdict.rule), example)
        plainest, *others = seen.values()
        case = "otherwise" if others else "always"
        found[kind] = [*others, replace(plainest, case=case)]
    return found


def idle_rules(policy: Policy) -> list[str]:
    """Names of the rules that decide about no single intervention, whatever the situation."""
    acting = policy.model_copy(update={"autonomy": "act"})
    deciding = {c.verdict.rule for found in by_kind(acting).values() for c in found}
    return [rule.name for rule in policy.rules if rule.name not in deciding]


def _examples(kind: str) -> Iterator[Intervention]:
    for values in _VALUES.get(kind, ({},)):
        yield intervention_adapter.validate_python({"kind": kind, **values})


def _situations(policy: Policy) -> Iterator[tuple[tuple[str, ...], Situation, bool]]:
    """Every combination of facts: in words, as a situation, and whether the target matters."""
    wheres = [rule.where for rule in policy.rules]
    backs = {w.steps_back_max for w in wheres if w.steps_back_max is not None}
    actors = {w.actor for w in wheres if w.actor is not None and w.actor.startswith("agent:")}
    base = _situation(policy, step=max(backs, default=0) + 2)
    reach = sorted({0, *backs, *(back + 1 for back in backs)})
    for words, episode in _episodes():
        for actor, verified, good, back in product(
            sorted({_AGENT, *actors}), (False, True), (True, False), reach
        ):
            facts = list(words)
            facts += ["evidence verified"] if verified else []
            facts += [f"actor {actor}"] if actor != _AGENT else []
            facts += [] if good else ["to a state not known to be good"]
            facts += [f"{back} steps back"] if back else []
            target = CheckpointInfo(
                id=_TARGET, step=base.step - back, branch="main", kind="snapshot", good=good
            )
            situation = replace(
                base,
                actor=actor,
                episode=episode,
                evidence_verified=verified,
                checkpoints=(target,),
            )
            yield tuple(facts), situation, bool(back) or not good


def _episodes() -> Iterator[tuple[tuple[str, ...], Episode | None]]:
    yield (), None
    for diagnosis, broken, alarm in product(get_args(Diagnosis), (False, True), (False, True)):
        words = [str(diagnosis)] if diagnosis != "unknown" else ["an episode"]
        words += ["alarm"] if alarm else []
        words += ["invariant broken"] if broken else []
        yield tuple(words), _episode(diagnosis, alarm=alarm, broken=broken)


def _episode(diagnosis: Diagnosis, *, alarm: bool, broken: bool) -> Episode:
    return Episode(
        id="e", branch="main", kind="loss_spike", diagnosis=diagnosis, severity="error",
        status="open", alarm=alarm, invariant_broken=broken, onset_step=0, last_step=0, findings=(),
    )  # fmt: skip


def _situation(policy: Policy, *, step: int) -> Situation:
    """A run that offers everything, at its plan."""
    lr = max(1.0, 2 * policy.limits.lr.min)
    figures = {"lr": lr, "lr_plan": lr, "lr_scheduled": lr, "optimizer.eps": 1e-8}
    settings = {name: Setting(name=name, value=value) for name, value in figures.items()}
    dropout = Setting(name="p", value=0.5, minimum=0, maximum=1)
    module = ModuleInfo(type="M", parameters=1, trained=1, resettable=True, settings={"p": dropout})
    offered = Capabilities(
        interventions=tuple(INTERVENTION_TYPES),
        settings={**settings, "accumulation": Setting(name="accumulation", value=1, type="int")},
        knobs={"k": Setting(name="k", value=1.0)},
        actions={"a": {}},
        modules={"m": module},
        frozen=("frozen",),
        branches={"main": None, "other": _TARGET},
        lr_plan_declared=True,
    )
    return Situation(
        actor=_AGENT, role="agent", step=step, executed=10 * PER_STEPS, time=_NOW,
        capabilities=offered,
    )  # fmt: skip


# --- what holds whatever the rules say -----------------------------------------------------------


def standing(policy: Policy) -> list[Consequence]:
    """Examples of the limits, the budgets, the cool-downs and the breaker, and of a person."""
    found = [*_limits(policy), *_ledgers(policy), *_cooldowns(policy), *_persons(policy)]
    return [_judged(policy, *example) for example in found]


_Example = tuple[str, Proposal, Situation, tuple[Past, ...]]


def _judged(
    policy: Policy, case: str, proposal: Proposal, situation: Situation, history: tuple[Past, ...]
) -> Consequence:
    verdict = review(policy, proposal, situation, history)
    return Consequence(case, proposal, situation, history, verdict)


def _proposal(*interventions: Intervention) -> Proposal:
    return Proposal(interventions=interventions, episode="e")


def _at(policy: Policy, factor: float, **changes: object) -> Situation:
    """The run with its learning rate at that factor over the plan."""
    base = _situation(policy, step=100)
    names = ("lr_factor_min", "lr_factor_max")
    factors = {name: Setting(name=name, value=factor) for name in names}
    settings = {**base.capabilities.settings, **factors}
    capabilities = base.capabilities.model_copy(update={"settings": settings})
    return replace(base, capabilities=capabilities, **changes)  # type: ignore[arg-type]


def _limits(policy: Policy) -> Iterator[_Example]:
    lr, clip = policy.limits.lr, policy.limits.grad_clip
    for factor in (1.1 * lr.max_factor, 1.1 * lr.total_factor[1], 0.9 * lr.total_factor[0]):
        if 0.001 <= factor <= 1000:
            yield (
                f"the learning rate at its plan, scaled by {factor:g}",
                _proposal(ScaleLR(factor=factor)), _at(policy, 1.0), (),
            )  # fmt: skip
    yield (
        f"gradients clipped at {0.9 * clip.min:g}",
        _proposal(SetGradClip(max_norm=0.9 * clip.min)), _at(policy, 1.0), (),
    )  # fmt: skip


def _ledgers(policy: Policy) -> Iterator[_Example]:
    budget, here = policy.budget, _at(policy, 1.0)
    mild, back = _proposal(ScaleLR(factor=1.0)), _proposal(Rollback(checkpoint=_TARGET))
    state = CheckpointInfo(id=_TARGET, step=100, branch="main", kind="snapshot", good=True)
    here = replace(here, checkpoints=(state,))
    long_ago, within = here.executed - PER_STEPS, policy.cooldown.steps
    acted = Past(_AGENT, ("scale_lr",), here.executed - min(within, PER_STEPS - 1), _NOW - DAY)
    earlier = Past(_AGENT, ("scale_lr",), long_ago, _NOW - DAY / 2)
    went = replace(earlier, kinds=("rollback",))
    skipped = replace(earlier, kinds=("skip_batches",), skipped_batches=1)
    often, most = budget.interventions, budget.skipped_batches.per_day
    yield (
        f"after {often.per_1000_steps} interventions in {PER_STEPS} steps, one more",
        mild, here, (acted,) * often.per_1000_steps,
    )  # fmt: skip
    yield (
        f"after {often.per_day} interventions in a day, one more",
        mild, here, (earlier,) * often.per_day,
    )  # fmt: skip
    yield (
        f"after {budget.rollbacks.per_day} rollbacks in a day, one more",
        back, here, (went,) * budget.rollbacks.per_day,
    )  # fmt: skip
    if 0 < most <= 1_000_000:
        yield (
            f"one batch skipped today, {most} more",
            _proposal(SkipBatches(count=most)), here, (skipped,),
        )  # fmt: skip


def _cooldowns(policy: Policy) -> Iterator[_Example]:
    mild, here = _proposal(ScaleLR(factor=1.0)), _at(policy, 1.0)
    last = Past(_AGENT, ("scale_lr",), here.executed, _NOW)
    yield "right after an intervention for another episode", mild, here, (last,)
    yield "right after one for the same episode", mild, here, (replace(last, episode="e"),)
    for phase in policy.cooldown.quiet:
        yield f"during {phase}", mild, _at(policy, 1.0, phases=frozenset({phase})), ()
    yield "while another is on its way", mild, _at(policy, 1.0, in_flight="P1"), ()
    alarm = _episode("misdriven", alarm=True, broken=True)
    yield (
        f"a misdriven run, after {policy.breaker.failed_canaries} failed canaries",
        mild, _at(policy, 1.0, episode=alarm, evidence_verified=True, breaker_open=True), (),
    )  # fmt: skip


def _persons(policy: Policy) -> Iterator[_Example]:
    person = _at(policy, 1.0, actor="human:you", role="operator")
    top = policy.limits.lr.total_factor[1]
    yield "a person ends the run", _proposal(Stop()), person, ()
    if 1.1 * top <= 1000:
        beyond = _proposal(ScaleLR(factor=1.1 * top))
        yield f"a person scales the learning rate by {1.1 * top:g}", beyond, person, ()
        yield "the same, forced by typing the run's name", beyond, replace(person, forced=True), ()
