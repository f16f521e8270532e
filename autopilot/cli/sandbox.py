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

from autopilot.cli.output import console
from autopilot.errors import BadInput

if TYPE_CHECKING:
    from autopilot.cli.evaluate import Plan
    from autopilot_evals.forks.scores import ScenarioScore, Summary
    from autopilot_evals.suites.asked import Asked
    from autopilot_evals.suites.engines import Engine
    from autopilot_evals.suites.results import Results
    from autopilot_evals.suites.sandbox import Flown, SandboxReport, Task

_SEEDS = 5
"""Times that a scenario is trained, unless told otherwise."""


def planned(asked: "Asked", page: Path | None) -> "Plan":
    """Choose the trainings now, and do them when it is begun.

    Raises:
        BadInput: There is no such agent or scenario, or none on that side of the split.
    """
    from autopilot_evals.agents import make_any_agent
    from autopilot_evals.baselines.pilots import FLOWN
    from autopilot_evals.suites import sandbox

    names = tuple(dict.fromkeys((*asked.agents, *(FLOWN if asked.references else ()))))
    agents = [make_any_agent(name) for name in names]
    scenarios = [one for one in sandbox.chosen(asked.scenarios) if asked.split in (None, one.split)]
    if not scenarios:
        raise BadInput(f"--split {asked.split}: none of the scenarios stands on that side")
    wanted = sandbox.tasks(scenarios, names, asked.seeds or _SEEDS)

    def evaluate(engine: "Engine", results: "Results", shown: bool) -> dict[str, object]:
        outcomes = _fly(wanted, results, engine)
        found = sandbox.report(scenarios, outcomes, names)
        if page is not None:
            from autopilot_evals.report.file import write_report
            from autopilot_evals.report.sandbox import sandbox_page

            write_report(page, sandbox_page(found, outcomes))
        if shown:
            _show(found)
        return {**sandbox.as_json(found), "agents": sandbox.flown_by(agents, outcomes)}

    return evaluate


def _fly(wanted: "Sequence[Task]", results: "Results", engine: "Engine") -> "list[Flown]":
    from autopilot_evals.agents import make_any_agent
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
                make_any_agent,
                results,
                engine=engine,
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
    table.add_column(first, overflow="fold")
    return table


def _number(value: float) -> str:
    return "-" if isnan(value) else f"{value:.2f}"
