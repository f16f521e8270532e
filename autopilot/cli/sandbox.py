"""``autopilot eval sandbox``: trainings on the spot, with the progress and the tables of them."""

from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from autopilot.cli.output import console, print_json

if TYPE_CHECKING:
    from autopilot_evals.forks import Outcome
    from autopilot_evals.forks.scores import ScenarioScore, Summary
    from autopilot_evals.suites.results import Results
    from autopilot_evals.suites.sandbox import SandboxReport, Task


def evaluate_sandbox(
    names: Sequence[str],
    agents: tuple[str, ...],
    *,
    seeds: int,
    jobs: int,
    out: Path | None,
    page: Path | None,
    json: bool,
) -> None:
    """Train, score and show."""
    from autopilot.cli.fly import make_agent
    from autopilot_evals.suites import sandbox
    from autopilot_evals.suites.results import Results

    scenarios = sandbox.chosen(names)
    for agent in agents:
        make_agent(agent)  # a wrong name ends here, and not after the first training
    wanted = sandbox.tasks(scenarios, agents, seeds)
    outcomes = _fly(wanted, Results(out), jobs)
    found = sandbox.report(scenarios, outcomes, agents)
    if page is not None:
        from autopilot_evals.report.file import write_report
        from autopilot_evals.report.sandbox import sandbox_page

        write_report(page, sandbox_page(found, outcomes))
    if json:
        print_json(sandbox.as_json(found))
    else:
        _show(found)


def _fly(wanted: "Sequence[Task]", results: "Results", jobs: int) -> "list[Outcome]":
    from autopilot.cli.fly import make_agent
    from autopilot_evals.suites.sandbox import fly_all

    told = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=told, transient=True, disable=not told.is_terminal) as progress:
        bar = progress.add_task("trainings", total=len(wanted))
        return list(
            fly_all(
                wanted,
                make_agent,
                results,
                jobs=jobs,
                told=lambda done, total: progress.update(bar, completed=done, total=total),
            )
        )


def _show(found: "SandboxReport") -> None:
    from autopilot_evals.suites.sandbox import misses, verdict

    for agent, scores in found.scores.items():
        console.print(_scenario_table(agent, scores))
    for part, lines in found.summaries.items():
        console.print(_summary_table(part.replace("_", " "), lines))
    for agent, scores in found.scores.items():
        for one, how in misses(scores):
            words = f"{agent} falls short in {one.scenario}: {how}"
            console.print(words, markup=False, soft_wrap=True)
    for line in found.summaries["all"]:
        if line.name in found.scores:
            short = [name.replace("_", " ") for name, ok in verdict(line).items() if not ok]
            words = f"targets missed: {', '.join(short)}" if short else "targets reached"
            console.print(f"{line.name}: {words}", markup=False)


def _scenario_table(agent: str, scores: "Iterable[ScenarioScore]") -> Table:
    table = _table(f"held-out loss after the cool-down: {agent}", "scenario")
    for name in ("alone", "flown", "best", "gain", "worst", "acted"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best move", overflow="fold")
    for one in scores:
        table.add_row(
            one.scenario,
            f"{one.arms[0].loss:.3f}",
            f"{one.agent.loss:.3f}",
            f"{one.oracle.loss:.3f}",
            "-" if one.gain is None else f"{one.gain:.2f}",
            f"{one.worst:+.1%}",
            "/".join(str(count) for count in one.interventions),
            one.oracle.name,
        )
    return table


def _summary_table(part: str, lines: "Iterable[Summary]") -> Table:
    table = _table(f"{part}: gain, and harm where healthy", "who")
    for name in ("median", "mean", "harmed", "left alone", "95 %", "worst"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.name,
            _number(line.median_gain),
            _number(line.mean_gain),
            f"{line.harmed} of {line.sick}",
            "-" if isnan(line.left_alone) else f"{line.left_alone:.0%}",
            "-".join(f"{bound:.2f}" for bound in line.left_alone_95),
            "-" if isnan(line.worst) else f"{line.worst:+.2%}",
        )
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    return table


def _number(value: float) -> str:
    return "-" if isnan(value) else f"{value:.2f}"
