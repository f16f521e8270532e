"""The journal as a story, and the state of a run, drawn with rich."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autopilot.console.words import (
    change_words,
    clean,
    event_words,
    interventions_words,
    number,
    proof_words,
    sparkline,
)
from autopilot.recording import EndedRun
from autopilot.schema import Episode, Event, Guidance, ProposalRecord, Row, RunInfo, metrics

_STYLE = {
    "finding": "yellow",
    "episode": "bold yellow",
    "proposal": "cyan",
    "no_proposal": "dim cyan",
    "consultation": "dim cyan",
    "approval": "magenta",
    "guidance": "magenta",
    "applied": "bold green",
    "receipt": "green",
    "canary": "green",
    "rejected": "red",
    "reflex": "blue",
    "fault": "bold red",
    "breaker": "bold red",
    "heartbeat_lost": "red",
}


def event_line(event: Event, *, times: bool = True) -> Text | None:
    """One event of the story; None for what a story leaves out."""
    words = event_words(event)
    if words is None:
        return None
    headline, detail = words
    line = Text()
    if times:
        stamp = datetime.fromtimestamp(event.time).astimezone().strftime("%H:%M:%S")
        line.append(f"{stamp} ", style="dim")
    line.append(f"step {event.step:>6} ", style="dim")
    line.append(headline, style=_STYLE.get(event.kind, ""))
    if detail:
        line.append(f"  {detail}", style="dim" if event.kind != "fault" else "red")
    return line


def print_story(console: Console, events: Iterable[Event]) -> None:
    """Print events as a story."""
    for event in events:
        line = event_line(event)
        if line is not None:
            console.print(line, soft_wrap=True)


def status_view(
    info: RunInfo,
    rows: list[Row],
    episodes: list[Episode],
    proposals: list[ProposalRecord],
) -> RenderableType:
    """The state of a run on one screen."""
    table = _grid()
    of = f" of {info.steps}" if info.steps else ""
    table.add_row("state", f"{info.status}, step {info.step}{of}, branch {info.branch}")
    table.add_row("loss", _course(rows))
    table.add_row("in force", Text(_in_force(info)))
    pilot = info.pilot
    words = "none" if pilot is None else f"{pilot.actor}{'' if pilot.alive else ' (silent)'}"
    table.add_row("pilot", words)
    if info.no_proposals:
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(info.no_proposals.items()))
        table.add_row("no proposal", counts)
    breaker = "; BREAKER OPEN, everything asks" if info.breaker_open else ""
    table.add_row("policy", f"{info.autonomy}{breaker} ({info.policy_digest})")
    _add_guidance(table, info.guidance)
    _add_matters(table, episodes, proposals)
    for fault in info.faults:
        table.add_row("fault", Text(clean(fault), style="red"))
    return Panel(table, title=Text(clean(info.name)), title_align="left")


def ended_view(run: EndedRun) -> RenderableType:
    """The last state of a run that is over, on one screen."""
    table = _grid()
    state = f"{run.status} at step {run.step}, branch {run.branch}: {run.reason}"
    table.add_row("state", Text(clean(state)))
    table.add_row("loss", _course(run.rows))
    _add_guidance(table, run.guidance)
    _add_matters(table, run.episodes, run.proposals)
    return Panel(table, title=Text(clean(run.name)), title_align="left")


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    return table


def _course(rows: Sequence[Row]) -> str:
    losses = [row.values[metrics.LOSS] for row in rows if metrics.LOSS in row.values]
    return f"{sparkline(losses, 50)}  {number(losses[-1])}" if losses else "none yet"


def _add_matters(
    table: Table, episodes: Sequence[Episode], proposals: Sequence[ProposalRecord]
) -> None:
    """What is wrong, and what was proposed for it lately."""
    for episode in episodes:
        table.add_row(
            f"episode {episode.id}",
            Text(clean(f"{episode.kind}, {episode.diagnosis}: {episode.reason}")),
        )
    for record in proposals[-5:]:
        what = interventions_words(record.proposal.interventions)
        table.add_row(record.id, Text(f"{record.status}: {what} ({record.actor})"))


def _add_guidance(table: Table, guidance: Iterable[Guidance]) -> None:
    """What operators told the agents."""
    for said in guidance:
        words = f"“{clean(said.text)}” ({said.actor}, step {said.step})"
        table.add_row(f"guidance {said.id}", Text(words))


def _in_force(info: RunInfo) -> str:
    settings = info.capabilities.settings
    names = ("lr", "lr_plan", "grad_clip")
    parts = [f"{n} {number(settings[n].value)}" for n in names if n in settings]
    parts += [f"{k} {number(v.value)}" for k, v in info.capabilities.knobs.items()]
    return ", ".join(parts)


def interventions_view(records: Iterable[ProposalRecord]) -> RenderableType:
    """Every intervention that was applied, with old and new values, proof and outcome."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(style="bold green", no_wrap=True)
    table.add_column()
    shown = False
    for record in records:
        if record.receipt is None:
            continue
        shown = True
        result = record.canary_result
        outcome = f"canary {result.result}: {result.reason}" if result else record.status
        lines: list[RenderableType] = [
            Text(f"after step {record.receipt.step}, by {record.actor}: ")
            + Text(interventions_words(record.proposal.interventions), style="bold"),
            Text(clean(record.proposal.rationale), style="dim"),
            *(Text(f"  {words}") for words in change_words(record.receipt)),
            Text(f"  {proof_words(record.receipt)}; {outcome}", style="dim"),
        ]
        table.add_row(record.id, Group(*lines))
    return table if shown else Text("no intervention", style="dim")
