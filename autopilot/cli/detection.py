"""``autopilot eval detection``: recordings read, and the tables of what was found in them."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from autopilot.cli.output import console
from autopilot.errors import BadInput

if TYPE_CHECKING:
    from autopilot.cli.evaluate import Plan
    from autopilot_evals.corpus import LabelledRun
    from autopilot_evals.scoring.detection import Line
    from autopilot_evals.suites.asked import Asked
    from autopilot_evals.suites.detection import AgentLines, DetectionReport
    from autopilot_evals.suites.engines import Engine
    from autopilot_evals.suites.results import Results

_DRAWS = 20
"""Times that alarms by chance are drawn, unless told otherwise."""


def planned(asked: "Asked", page: Path | None) -> "Plan":
    """Read the labels now, and the recordings when it is begun.

    Raises:
        BadInput: There is no such agent or corpus, or nothing of it on that side of the split.
    """
    from autopilot_evals.agents import make_any_agent
    from autopilot_evals.scoring.usage import card_of
    from autopilot_evals.suites import detection
    from autopilot_evals.suites.answers import read_answers

    cards = [card_of(make_any_agent(name)) for name in asked.agents]
    runs = _runs(asked)

    def evaluate(engine: "Engine", results: "Results", shown: bool) -> dict[str, object]:
        read = detection.read_all(runs, results, engine)
        answers = read_answers(runs, asked.agents, make_any_agent, results, engine)
        agents = [(card, answers[card.name]) for card in cards]
        found = detection.report(runs, read, seeds=asked.seeds or _DRAWS, agents=agents)
        if page is not None:
            from autopilot_evals.report.detection import detection_page
            from autopilot_evals.report.file import write_report

            write_report(page, detection_page(found, runs, read, answers))
        if shown:
            _show(found)
        return detection.as_json(found)

    return evaluate


def _runs(asked: "Asked") -> "list[LabelledRun]":
    from autopilot_evals.corpus import own_corpus, read_corpus

    # Processes elsewhere need not stand in the same folder.
    folder = (asked.corpus or own_corpus()).resolve()
    runs = [run for run in read_corpus(folder) if asked.split in (None, run.split)]
    if not runs:
        raise BadInput(f"--split {asked.split}: no run of {folder} stands on that side")
    return runs


def _show(found: "DetectionReport") -> None:
    from autopilot_evals.suites.detection import verdict

    for part, lines in found.lines.items():
        console.print(_table(part.replace("_", " "), lines))
    console.print(_agents_table(found.agents))
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


def _agents_table(agents: "Sequence[AgentLines]") -> Table:
    from autopilot_evals.scoring.usage import cost

    table = Table(title="first proposals to act", box=None, pad_edge=False)
    table.add_column("agent", no_wrap=True)
    for name in ("recall", "delay", "false", "proposals", "no proposal", "cost"):
        table.add_column(name, justify="right", no_wrap=name != "no proposal")
    for one in agents:
        line = one.lines["all"]
        table.add_row(
            one.card.name,
            "-" if isnan(line.recall) else f"{line.recall:.2f}",
            "-" if line.delay_rows is None else f"{line.delay_rows:.3g} rows",
            f"{line.false_alarms:.0f}",
            str(one.proposals),
            ", ".join(f"{count} {kind}" for kind, count in one.silences.items()) or "-",
            cost(one.spent, one.asked),
        )
    return table


def _table(title: str, lines: Sequence["Line"]) -> Table:
    events = f"{title}: {lines[0].events} events in {lines[0].runs} runs"
    table = Table(title=events, box=None, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    for name in ("recall", "95 %", "delay", "false", "/1000 steps", "/1000 rows"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        low, high = line.recall_95
        table.add_row(
            line.rule,
            "-" if isnan(line.recall) else f"{line.recall:.2f}",
            f"{low:.2f}-{high:.2f}",
            "-" if line.delay_rows is None else f"{line.delay_rows:.3g} rows",
            f"{line.false_alarms:.0f}",
            f"{line.per_1000_steps:.4f}",
            f"{line.per_1000_rows:.3f}",
        )
    return table
