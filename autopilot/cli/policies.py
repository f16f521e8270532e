"""``autopilot policy``: write one, check one."""

from pathlib import Path
from textwrap import wrap
from typing import Annotated

import typer

from autopilot.cli.output import Json, console, print_json
from autopilot.consequences import Consequence, by_kind, idle_rules, standing
from autopilot.errors import BadInput
from autopilot.policy import DEFAULT_POLICY, read_policy

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
    """Check a policy file and say what it allows, asks and denies.

    Every line is the guard's own verdict on an example: for each kind of intervention all that an
    agent can meet, with the plainest case; then limits, budgets, cool-downs and a person.
    """
    policy = read_policy(path)
    verdicts, always, idle = by_kind(policy), standing(policy), idle_rules(policy)
    if json:
        print_json(
            {
                "digest": policy.digest(),
                "policy": policy,
                "verdicts": {kind: [_row(c) for c in found] for kind, found in verdicts.items()},
                "standing": [{**_row(c), "reason": c.verdict.reason} for c in always],
                "idle_rules": idle,
            }
        )
        return
    console.print(f"{path}: a valid policy ({policy.digest()})")
    console.print(
        f"autonomy {policy.autonomy}; an unanswered question expires after "
        f"{policy.approval.ttl:g} s: {policy.approval.on_expiry}"
    )
    for kinds, rows in _alike(verdicts).items():
        console.print(f"\n{', '.join(kinds)}", style="bold", markup=False)
        for decision, case, rule in rows:
            _print_case(decision, f"{case} ({rule})")
    console.print("\nwhatever the rules say", style="bold")
    for found in always:
        verdict = found.verdict
        _print_case(verdict.decision, found.case)
        _print_wrapped(f"{verdict.rule}: {verdict.reason}", begin=_MARGIN)
    for name in idle:
        console.print(
            f"\nthe rule “{name}” never decides: something else always does", markup=False
        )


_Row = tuple[str, str, str]


def _row(found: Consequence) -> dict[str, str]:
    verdict = found.verdict
    return {"decision": verdict.decision, "rule": verdict.rule, "case": found.case}


def _alike(verdicts: dict[str, list[Consequence]]) -> dict[tuple[str, ...], tuple[_Row, ...]]:
    """Kinds that meet the same verdicts in the same cases, together."""
    groups: dict[tuple[_Row, ...], tuple[str, ...]] = {}
    for kind, found in verdicts.items():
        rows = tuple((c.verdict.decision, c.case, c.verdict.rule) for c in found)
        groups[rows] = (*groups.get(rows, ()), kind)
    return {kinds: rows for rows, kinds in groups.items()}


_MARGIN = " " * 8


def _print_case(decision: str, words: str) -> None:
    _print_wrapped(words, begin=f"  {decision:<6}")


def _print_wrapped(words: str, *, begin: str) -> None:
    """In lines as wide as the terminal, those after the first under its words."""
    lines = wrap(words, console.width, initial_indent=begin, subsequent_indent=_MARGIN)
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
