"""``autopilot eval decisions``: agents asked, and the table of how they answer."""

from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from autopilot.cli.output import console
from autopilot.errors import BadInput

if TYPE_CHECKING:
    from autopilot.cli.evaluate import Plan
    from autopilot_evals.suites.asked import Asked
    from autopilot_evals.suites.decisions import DecisionReport
    from autopilot_evals.suites.engines import Engine
    from autopilot_evals.suites.results import Results

_DRAWS = 20
"""Times that who acts at random is asked, unless told otherwise."""


def planned(asked: "Asked", page: Path | None) -> "Plan":
    """Choose the decisions now, and ask when it is begun.

    Raises:
        BadInput: There is no such agent or corpus, or none of its decisions was reviewed.
    """
    from autopilot_evals.agents import make_any_agent
    from autopilot_evals.suites import decisions

    for name in asked.agents:
        make_any_agent(name)
    makes = [partial(make_any_agent, name) for name in asked.agents]
    chosen, unreviewed = decisions.chosen(asked.corpus)
    if not chosen:
        raise BadInput(f"{asked.corpus}: none of its decisions was reviewed")

    def evaluate(engine: "Engine", results: "Results", shown: bool) -> dict[str, object]:
        draws = asked.seeds or _DRAWS
        found = decisions.report(
            makes, chosen, seeds=draws, unreviewed=unreviewed, results=results, engine=engine
        )
        if page is not None:
            from autopilot_evals.report.decisions import decisions_page
            from autopilot_evals.report.file import write_report

            write_report(page, decisions_page(found))
        if shown:
            _show(found)
        return decisions.as_json(found)

    return evaluate


def _show(found: "DecisionReport") -> None:
    from autopilot_evals.scoring.usage import cost

    table = Table(title="decisions of experts", box=None, pad_edge=False)
    table.add_column("agent", no_wrap=True)
    for name in ("agrees", "95 %", "to act", "to hold", "balanced", "harms", "invented", "cost"):
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
            cost(line.spent, line.decisions),
        )
    console.print(table)
    for name, pairs in found.answers.items():
        for decision, one in pairs:
            if one.grade in ("harmful", "unlisted"):
                words = f"{name}, {one.grade}: {one.answer} at {decision.run}: {decision.what}"
                console.print(f"{words} (done then: {decision.expert})", markup=False)
    if found.unreviewed:
        console.print(f"{len(found.unreviewed)} decisions of the corpus are not reviewed")


def _number(value: float) -> str:
    return "-" if isnan(value) else f"{value:.2f}"
