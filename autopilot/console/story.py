"""The journal as a story, and the state of a run, drawn with rich."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from autopilot.console.facts import Fact, Look, course, facts_view
from autopilot.console.words import (
    change_words,
    clean,
    event_words,
    interventions_words,
    number,
    proof_words,
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


def print_story(console: Console, events: Iterable[Event]) -> bool:
    """Print events as a story; whether there was anything to print."""
    lines = [line for line in map(event_line, events) if line is not None]
    for line in lines:
        console.print(line, soft_wrap=True)
    return bool(lines)


def status_view(
    info: RunInfo,
    rows: Sequence[Row],
    episodes: Sequence[Episode],
    proposals: Sequence[ProposalRecord],
    look: Look,
    width: int,
) -> RenderableType:
    """The state of a run on one screen."""
    of = f" of {info.steps}" if info.steps else ""
    pilot = info.pilot
    words = "none" if pilot is None else f"{pilot.actor}{'' if pilot.alive else ' (silent)'}"
    breaker = "; BREAKER OPEN, everything asks" if info.breaker_open else ""
    facts = [
        ("state", f"{info.status}, step {info.step}{of}, branch {info.branch}"),
        ("loss", course(_losses(rows), look, width)),
        ("in force", _in_force(info)),
        ("pilot", words),
    ]
    if info.no_proposals:
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(info.no_proposals.items()))
        facts.append(("no proposal", counts))
    facts.append(("policy", f"{info.autonomy}{breaker} ({info.policy_digest})"))
    facts += [*_guidance(info.guidance), *_matters(episodes, proposals)]
    facts += [("FAULT", fault) for fault in info.faults]
    return facts_view(info.name, facts, look)


def ended_view(run: EndedRun, look: Look, width: int) -> RenderableType:
    """The last state of a run that is over, on one screen."""
    facts = [
        ("state", f"{run.status} at step {run.step}, branch {run.branch}: {run.reason}"),
        ("loss", course(_losses(run.rows), look, width)),
        *_guidance(run.guidance),
        *_matters(run.episodes, run.proposals),
    ]
    return facts_view(run.name, facts, look)


def _losses(rows: Sequence[Row]) -> list[float]:
    return [row.values[metrics.LOSS] for row in rows if metrics.LOSS in row.values]


def _matters(episodes: Sequence[Episode], proposals: Sequence[ProposalRecord]) -> Iterator[Fact]:
    """What is wrong, and what was proposed for it lately."""
    for episode in episodes:
        yield f"episode {episode.id}", f"{episode.kind}, {episode.diagnosis}: {episode.reason}"
    for record in proposals[-5:]:
        what = interventions_words(record.proposal.interventions)
        yield record.id, f"{record.status}: {what} ({record.actor})"


def _guidance(told: Iterable[Guidance]) -> Iterator[Fact]:
    """What operators told the agents."""
    for said in told:
        yield f"guidance {said.id}", f"“{said.text}” ({said.actor}, step {said.step})"


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
