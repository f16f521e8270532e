"""``autopilot policy``: write one, check one."""

from pathlib import Path
from typing import Annotated

import typer

from autopilot.cli.output import Json, console, print_json
from autopilot.errors import BadInput
from autopilot.policy import DEFAULT_POLICY, Policy, read_policy
from autopilot.schema import INTERVENTION_TYPES

app = typer.Typer(help="Write a policy file, or check one.", no_args_is_help=True)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("policy.toml"),
) -> None:
    """Write the default policy, with comments, as a file to change."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(DEFAULT_POLICY)
    except FileExistsError as error:
        raise BadInput(f"{path}: exists already; name another file") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
    console.print(f"wrote {path}; check a change with: autopilot policy check {path}")


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="The policy file.")],
    json: Json = False,
) -> None:
    """Check a policy file and say what it allows, asks and denies."""
    policy = read_policy(path)
    verdicts = {kind: _speaks(policy, kind) for kind in INTERVENTION_TYPES}
    if json:
        print_json({"digest": policy.digest(), "policy": policy, "verdicts": verdicts})
        return
    limits, budget = policy.limits, policy.budget
    low, high = limits.lr.total_factor
    console.print(f"{path}: a valid policy ({policy.digest()})")
    console.print(
        f"autonomy {policy.autonomy}; an unanswered question expires after "
        f"{policy.approval.ttl:g} s: {policy.approval.on_expiry}"
    )
    console.print(
        f"learning rate: {low:g} to {high:g} times the plan in all, at most "
        f"{limits.lr.max_factor:g} times up at once, never below {limits.lr.min:g}"
    )
    console.print(
        f"budget: {budget.interventions.per_1000_steps} interventions in 1000 steps, "
        f"{budget.interventions.per_day} a day, {budget.rollbacks.per_day} rollbacks a day"
    )
    for kind, words in verdicts.items():
        console.print(f"  {kind:<22} {'; '.join(words)}", markup=False)


def _speaks(policy: Policy, kind: str) -> list[str]:
    """What the rules say of a kind, in the order in which they are asked."""
    if policy.autonomy == "observe":
        return ["denied: agents observe only"]
    found = []
    for verdict in ("deny", "ask", "allow"):
        for rule in policy.rules:
            if rule.verdict != verdict or not (kind in rule.kinds or "*" in rule.kinds):
                continue
            facts = rule.where.model_dump(exclude_none=True)
            where = ", ".join(f"{name} = {value}" for name, value in facts.items())
            held = " (as a suggestion: asks)" if policy.autonomy == "suggest" else ""
            found.append(f"{verdict}{held} where {where}" if where else f"{verdict}{held}")
    return [*found, f"otherwise {policy.default}"]
