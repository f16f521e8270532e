"""What a policy lets an agent do, as far as it can be known before anything is proposed."""

from autopilot.guard import HARMLESS
from autopilot.policy import Policy, Rule
from autopilot.schema import INTERVENTION_TYPES
from autopilot_agents.llm.fence import clean, plain_name


def plainly_denied(policy: Policy, kind: str) -> bool:
    r"""Whether every proposal of this kind would be denied, whatever the run's facts.

    >>> from autopilot.policy import parse_policy
    >>> never = parse_policy('[[rules]]\nname="no"\nkinds=["stop"]\nverdict="deny"')
    >>> plainly_denied(never, "stop"), plainly_denied(never, "pause")
    (True, False)
    """
    if policy.autonomy == "observe":
        return True
    budget = policy.budget
    if kind == "rollback" and budget.rollbacks.per_day == 0:
        return True
    if kind == "skip_batches" and budget.skipped_batches.per_day == 0:
        return True
    left = min(budget.interventions.per_day, budget.interventions.per_1000_steps)
    if kind not in HARMLESS and left == 0:
        return True
    rules = [rule for rule in policy.rules if _covers(rule, kind)]
    if any(r.verdict == "deny" and not r.where.model_dump(exclude_none=True) for r in rules):
        return True
    return policy.default == "deny" and not any(r.verdict != "deny" for r in rules)


def policy_words(policy: Policy, kind: str) -> list[str]:
    """What the policy's rules say of a kind, in the order in which they are asked."""
    if kind not in INTERVENTION_TYPES:
        return [f"no such kind: {plain_name(kind)}"]
    found = [f"autonomy: {policy.autonomy}"]
    for verdict in ("deny", "ask", "allow"):
        for rule in policy.rules:
            if rule.verdict == verdict and _covers(rule, kind):
                facts = rule.where.model_dump(exclude_none=True)
                where = ", ".join(f"{name} = {value}" for name, value in facts.items())
                found.append(
                    f"{verdict}: “{clean(rule.name, 120)}”" + f" where {where}" * bool(where)
                )
    return [*found, f"otherwise: {policy.default}"]


def _covers(rule: Rule, kind: str) -> bool:
    return kind in rule.kinds or "*" in rule.kinds
