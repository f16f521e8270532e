"""``autopilot eval``: how well detectors find and agents decide."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autopilot.cli.output import Json, console, print_json
from autopilot.errors import BadInput

if TYPE_CHECKING:
    from autopilot_evals.suites.asked import Asked
    from autopilot_evals.suites.engines import Engine
    from autopilot_evals.suites.results import Results


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="eval")(evaluate)


def evaluate(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="detection, decisions or sandbox; or a .toml file that names one or several.",
            show_default=False,
        ),
    ],
    corpus: Annotated[
        Path | None,
        typer.Option(
            "--corpus",
            metavar="DIR",
            help="Labelled recordings, or decisions; by default those that come along.",
        ),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", help="Whose decisions to score; repeat it to compare."),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option("--scenario", help="Of the sandbox, instead of all; repeat it for more."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="development or held_out, instead of both."),
    ] = None,
    references: Annotated[
        bool,
        typer.Option("--references", help="Agents of others fly in the sandbox too."),
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            min=1,
            help="Times that rules by chance are drawn (20), or a scenario is trained (5).",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="processes, or ray: the cluster that RAY_ADDRESS names, or one started here.",
        ),
    ] = "processes",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Pieces of work at once; by default one a core."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Keep results as JSON lines, and go on there."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write one HTML page with pictures too."),
    ] = None,
    json: Json = False,
) -> None:
    """Score the run's own detectors, or agents, beside rules that must not look good.

    DIR is a folder with an index.csv, or recordings with a labels.json beside them. Options
    override what a file says; of a file of several suites each writes a page of its own, and
    --json prints one object by name.

    autopilot eval detection --corpus recordings

    autopilot eval decisions --corpus recordings --agent rules --agent observe --report out.html

    autopilot eval sandbox --agent rules --seeds 5 --out sandbox.jsonl

    autopilot eval mine.toml --engine ray --out results.jsonl
    """
    from autopilot_evals.suites.asked import read_asked
    from autopilot_evals.suites.engines import make_engine
    from autopilot_evals.suites.results import Results

    options = {
        "corpus": corpus,
        "agents": tuple(dict.fromkeys(agent)) if agent else None,
        "scenarios": tuple(scenario) if scenario else None,
        "split": split,
        "references": references or None,
        "seeds": seeds,
    }
    given = {key: value for key, value in options.items() if value is not None}
    asked = read_asked(suite, given)
    pages = {name: _page_of(report, name) for name in asked}
    plans = {}
    for name, one in asked.items():
        try:
            plans[name] = _planned(one, pages[name])
        except BadInput as error:
            where = f"{suite}, {name}" if name else suite
            raise BadInput(f"{where}: {error}") from error
    spread, results = make_engine(engine, jobs), Results(out)
    found = {}
    for name, plan in plans.items():
        if name and not json:
            console.rule(name)
        found[name] = plan(spread, results, not json)
    if json:
        print_json(found.get("", found))


Plan = Callable[["Engine", "Results", bool], dict[str, object]]
"""Evaluates, shows what was found if it is to be shown, and gives it as plain values."""


def _planned(asked: "Asked", page: Path | None) -> Plan:
    """Everything that can be said against it is said here, and not after hours of work."""
    from autopilot.cli import decisions, detection, sandbox

    match asked.suite:
        case "detection":
            return detection.planned(asked, page)
        case "decisions":
            return decisions.planned(asked, page)
        case "sandbox":
            return sandbox.planned(asked, page)


def _page_of(report: Path | None, name: str) -> Path | None:
    """Where the report of a suite goes; of several, beside one another."""
    if report is None:
        return None
    from autopilot_evals.report.file import check_report

    page = report.with_stem(f"{report.stem}-{name}") if name else report
    check_report(page)
    return page
