"""``autopilot eval``: how well detectors find and agents decide."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from autopilot.cli.output import Json, console, print_json
from autopilot.errors import BadInput

if TYPE_CHECKING:
    from autopilot_evals.scoring.detection import Line
    from autopilot_evals.suites.decisions import DecisionReport
    from autopilot_evals.suites.detection import DetectionReport


DRAWS = 20
"""Times that a rule by chance is drawn, unless told otherwise."""
SEEDS = 5
"""Times that a scenario is trained, unless told otherwise."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="eval")(evaluate)


@dataclass(frozen=True)
class _Asked:
    """What the command line asks of a suite."""

    corpus: Path | None
    scenarios: tuple[str, ...]
    agents: tuple[str, ...]
    seeds: int | None
    jobs: int
    out: Path | None
    report: Path | None
    json: bool


def evaluate(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE", help="detection, decisions or sandbox.", show_default=False
        ),
    ],
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", metavar="DIR", help="Labelled recordings, or decisions."),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", help="Whose decisions to score; repeat it to compare."),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option("--scenario", help="Of the sandbox, instead of all; repeat it for more."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            min=1,
            help="Times that rules by chance are drawn (20), or a scenario is trained (5).",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processes; by default one a core.")
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

    DIR is a folder with an index.csv, or recordings with a labels.json beside them.

    autopilot eval detection --corpus recordings

    autopilot eval decisions --corpus recordings --agent rules --agent observe --report out.html

    autopilot eval sandbox --agent rules --seeds 5 --out sandbox.jsonl
    """
    if suite not in SUITES:
        raise BadInput(f"{suite}: no such suite; known: {', '.join(SUITES)}")
    agents = tuple(dict.fromkeys(agent or ("rules",)))
    cores = os.cpu_count() or 1
    if report is not None:
        from autopilot_evals.report.file import check_report

        check_report(report)  # before hours of work, not after
    asked = _Asked(corpus, tuple(scenario or ()), agents, seeds, jobs or cores, out, report, json)
    SUITES[suite](asked)


def _detection(asked: _Asked) -> None:
    from autopilot.cli.fly import make_agent
    from autopilot_evals.corpus import read_corpus
    from autopilot_evals.suites import detection
    from autopilot_evals.suites.results import Results

    if asked.corpus is None:
        raise BadInput("--corpus: name a folder of labelled recordings to detect in")
    agents = [make_agent(name) for name in asked.agents]
    runs = read_corpus(asked.corpus)
    read = list(detection.read_all(runs, Results(asked.out), asked.jobs))
    found = detection.report(runs, read, seeds=asked.seeds or DRAWS)
    if asked.report is not None:
        from autopilot_evals.report.detection import detection_page
        from autopilot_evals.report.file import write_report

        write_report(asked.report, detection_page(found, runs, read, agents))
    if asked.json:
        print_json(detection.as_json(found))
    else:
        _show_detection(found)


def _show_detection(found: "DetectionReport") -> None:
    from autopilot_evals.suites.detection import verdict

    for part, lines in found.lines.items():
        console.print(_detection_table(part.replace("_", " "), lines))
    table = Table("kind of event", "must be found", "events", "noticed", "delay", box=None)
    for kind in found.kinds:
        needed = "yes" if kind.needed else "no"
        delay = "-" if kind.delay_rows is None else f"{kind.delay_rows:.0f} rows"
        table.add_row(kind.kind, needed, str(kind.events), f"{kind.noticed:g}", delay)
    console.print(table)
    for run, one in found.missed:
        event = one.event
        console.print(f"missed: {event.kind} at {event.onset}, {run}: {event.note}", markup=False)
    for run, alarm in found.cried:
        console.print(f"false alarm: {alarm.kind} at {alarm.step}, {run}", markup=False)
    reached = verdict(found.lines["all"][0])
    console.print("target reached" if reached else "[bold]target missed[/bold]")


def _detection_table(title: str, lines: Sequence["Line"]) -> Table:
    events = f"{title}: {lines[0].events} events in {lines[0].runs} runs"
    table = Table(title=events, box=None, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    for name in ("recall", "95 %", "delay", "false", "/1000 steps", "/1000 rows"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        low, high = line.recall_95
        table.add_row(
            line.rule,
            _number(line.recall),
            f"{low:.2f}-{high:.2f}",
            "-" if line.delay_rows is None else f"{line.delay_rows:.3g} rows",
            f"{line.false_alarms:.0f}",
            f"{line.per_1000_steps:.4f}",
            f"{line.per_1000_rows:.3f}",
        )
    return table


def _decisions(asked: _Asked) -> None:
    from autopilot.cli.fly import make_agent
    from autopilot_evals.suites import decisions

    agents = [make_agent(name) for name in asked.agents]
    chosen, unreviewed = decisions.chosen(asked.corpus)
    if not chosen:
        raise BadInput(f"{asked.corpus}: none of its decisions was reviewed")
    found = decisions.report(agents, chosen, seeds=asked.seeds or DRAWS, unreviewed=unreviewed)
    if asked.out is not None:
        decisions.write_answers(asked.out, found)
    if asked.report is not None:
        from autopilot_evals.report.decisions import decisions_page
        from autopilot_evals.report.file import write_report

        write_report(asked.report, decisions_page(found))
    if asked.json:
        print_json(decisions.as_json(found))
    else:
        _show_decisions(found)


def _show_decisions(found: "DecisionReport") -> None:
    table = Table(title="decisions of experts", box=None, pad_edge=False)
    table.add_column("agent", no_wrap=True)
    for name in ("agrees", "95 %", "to act", "to hold", "balanced", "harms", "invented"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in found.lines:
        table.add_row(
            line.agent,
            _number(line.agreement),
            "-".join(f"{bound:.2f}" for bound in line.agreement_95),
            _number(line.where_to_act),
            _number(line.where_to_hold),
            _number(line.balanced),
            _number(line.harm),
            str(line.invented),
        )
    console.print(table)
    for name, pairs in found.answers.items():
        for decision, one in pairs:
            if one.grade in ("harmful", "unlisted"):
                words = f"{name}, {one.grade}: {one.answer} at {decision.run}: {decision.what}"
                console.print(f"{words} (done then: {decision.expert})", markup=False)
    if found.unreviewed:
        console.print(f"{len(found.unreviewed)} decisions of the corpus are not reviewed")


def _sandbox(asked: _Asked) -> None:
    from autopilot.cli.sandbox import evaluate_sandbox

    evaluate_sandbox(
        asked.scenarios,
        asked.agents,
        seeds=asked.seeds or SEEDS,
        jobs=asked.jobs,
        out=asked.out,
        page=asked.report,
        json=asked.json,
    )


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or isnan(value) else f"{value:.{digits}f}"


SUITES: dict[str, Callable[[_Asked], None]] = {
    "detection": _detection,
    "decisions": _decisions,
    "sandbox": _sandbox,
}
"""What can be evaluated, by the name a user types."""
