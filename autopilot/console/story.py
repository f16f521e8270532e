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
from autopilot.schema import (
    Episode,
    Event,
    Finding,
    Guidance,
    ProposalRecord,
    Row,
    RunInfo,
    metrics,
)

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


def print_story(console: Console, events: Iterable[Event], *, times: bool = True) -> bool:
    """Print events as a story; whether there was anything to print."""
    lines = [line for event in events if (line := event_line(event, times=times)) is not None]
    for line in lines:  # whole lines for programs; in a terminal no word is torn apart
        console.print(line, soft_wrap=None if console.is_terminal else True)
    return bool(lines)


class LiveStory:
    """The story while it happens, in which what lasts is told once.

    Detectors report a sickness again and again, and training waits for a moment each time; that
    would push a question off the screen. The journal, and ``autopilot log``, have every report.

    Args:
        console: Where to print.
        times: Begin every line with the time of day.
    """

    def __init__(self, console: Console, *, times: bool = True) -> None:
        self._console = console
        self._times = times
        self._last: dict[str, str] = {}
        self._held_for = ""

    def tell(self, events: Iterable[Event], *, asking: bool = False) -> bool:
        """Print what is new; whether anything was.

        Args:
            events: In order.
            asking: A person is asked here: what waits for an answer is put as a question instead.
        """
        news = [event for event in events if self._is_news(event)]
        told = [event for event in news if not (asking and _is_question(event))]
        return print_story(self._console, told, times=self._times)

    def _is_news(self, event: Event) -> bool:
        report = self._report(event)
        if report is None:
            return True
        topic, said = report
        known = self._last.get(topic) == said
        self._last[topic] = said
        return not known

    def _report(self, event: Event) -> tuple[str, str] | None:
        """What may come again, as a topic and what is said of it."""
        body = event.body
        match event.kind, body.get("status"):
            case "finding", _:
                found = Finding.model_validate(body["finding"])
                topic = f"{found.episode} {found.kind} {found.tier} {found.claimed_by}"
                return None if found.episode is None else (topic, "found")
            case "episode", _:
                seen = Episode.model_validate(body["episode"])
                return seen.id, f"{seen.status} {seen.kind} {seen.diagnosis}"
            case "status", "held":
                self._held_for = str(body.get("reason", ""))
                return self._held_for, "held"
            case "status", "running" if self._held_for:
                held_for, self._held_for = self._held_for, ""
                return f"{held_for}: over", "running"
        return None


def _is_question(event: Event) -> bool:
    if event.kind != "proposal":
        return False
    return ProposalRecord.model_validate(event.body["record"]).status == "pending"


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


def _losses(rows: Sequence[Row]) -> list[tuple[int, float]]:
    return [(row.step, row.values[metrics.LOSS]) for row in rows if metrics.LOSS in row.values]


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
