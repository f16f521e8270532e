"""``autopilot replay``: what a pilot would have seen, proposed and been allowed in a recording."""

import contextlib
import importlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from autopilot.cli.output import Json, console, print_json
from autopilot.errors import AutopilotError, BadInput
from autopilot.policy import Policy, read_policy
from autopilot.ports import Agent

if TYPE_CHECKING:
    from autopilot.recording import Playback, RecordedRun
    from autopilot.schema import Event
    from autopilot_agents.llm.played import PlayedAgent
    from autopilot_evals.replay import ReplayReport, Watch

_LONGEST_WAIT = 5.0
"""Seconds that a gap in a recording is waited for at most."""
_REFRESH = 0.1
_FACTS = frozenset({"applied", "receipt", "canary", "status", "checkpoint", "breaker"})
"""Kinds of event that only the recorded run can have brought about."""
_SILENT = frozenset({"heartbeat", "heartbeat_lost"})


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    recordings: Annotated[
        list[str],
        typer.Argument(metavar="RECORDING…", help="Run directories, or logs of other programs."),
    ],
    agent: Annotated[
        str,
        typer.Option("--agent", help="Who pilots: rules, llm, observe, or package.module:factory."),
    ] = "rules",
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file; by default the default policy.")
    ] = None,
    turns: Annotated[
        str,
        typer.Option(
            "--turns",
            help="Of a language model: ask, or recorded to answer from the run's own journal.",
        ),
    ] = "ask",
    speed: Annotated[
        str, typer.Option("--speed", help="max, or so many times as fast as recorded: 1x, 60x.")
    ] = "max",
    json: Json = False,
) -> None:
    """Play recorded runs to a pilot: what it would have seen, proposed, and been allowed.

    The detectors, the guard and the loop are those of a live flight. Nothing is applied, and after
    the first proposal that would have been, the recorded future is no longer what would have
    happened. --json prints one report a recording, each on a line of its own.

    With --turns recorded the decisions of the run's model are made again from the turns in its
    journal: no server, no key, the same proposals. Without --policy it is judged by the run's own.

    Examples: [bold]replay runs/a[/bold], [bold]replay runs/a --speed 60x[/bold],
    [bold]replay runs/a --agent llm --turns recorded[/bold],
    [bold]replay runs/* --agent mine.pilot:make --policy strict.toml --json[/bold].
    """
    pace = read_speed(speed)
    if pace is not None and json:
        raise BadInput(f"--speed {speed}: there is nothing to watch with --json; leave one out")
    with contextlib.suppress(KeyboardInterrupt):
        for flight in _flights(recordings, agent, policy, turns):
            if json:
                print_json(flight.play(), line=True)
                continue
            console.print(Text(flight.recorded.name, style="bold"), soft_wrap=True)
            with _Screen(pace) as screen:
                report = flight.play(watch=screen.watch, row_by_row=pace is not None)
            _summarise(report)


@dataclass(frozen=True)
class _Flight:
    """One recording, who is to pilot it, and what judges that.

    Attributes:
        played: The pilot, where it answers from the recording.
    """

    recorded: "RecordedRun"
    pilot: Agent
    judged_by: Policy
    played: "PlayedAgent | None" = None

    def play(self, watch: "Watch | None" = None, *, row_by_row: bool = False) -> "ReplayReport":
        """Play it; what was recorded and not come to is said."""
        from autopilot_evals.replay import replay as play

        due = self.played.due if self.played is not None else None
        report = play(
            self.recorded, self.pilot, self.judged_by, watch=watch, row_by_row=row_by_row, due=due
        )
        left = self.played.unplayed() if self.played is not None else []
        missed = tuple(f"a recorded decision was not come to: {one}" for one in left)
        return report.model_copy(update={"remarks": (*report.remarks, *missed)})


def _flights(recordings: list[str], agent: str, policy: Path | None, turns: str) -> "list[_Flight]":
    """Everything that can be wrong is found here, before anything is played.

    Raises:
        BadInput: An option, the policy or a recording is not what it should be.
    """
    judged_by = read_policy(policy)
    if turns == "ask":
        pilots = [make_pilot(agent) for _ in recordings]
        opened = [open_any(recording) for recording in recordings]
        return [_Flight(run, pilot, judged_by) for run, pilot in zip(opened, pilots, strict=True)]
    if turns != "recorded":
        raise BadInput(f"--turns {turns}: expected ask, or recorded for those of the run's journal")
    if agent != "llm":
        raise BadInput(f"--turns recorded: plays the model of a run; use --agent llm, not {agent}")
    from autopilot_agents.llm.played import PlayedAgent

    flights = []
    for run in map(open_any, recordings):
        played = PlayedAgent(run.events)
        flights.append(_Flight(run, played, judged_by if policy else played.policy, played))
    return flights


def read_speed(text: str) -> float | None:
    """How many times as fast as recorded; None for as fast as it goes.

    Raises:
        BadInput: It says neither.
    """
    if text == "max":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x", text)
    if found is None or float(found[1]) <= 0:
        raise BadInput(f"--speed {text}: expected max, or a number of times such as 1x or 60x")
    return float(found[1])


def make_pilot(name: str) -> Agent:
    """An agent by its name, or from a factory of the user's own.

    Raises:
        BadInput: There is none of that name, or the factory makes none.
    """
    from autopilot_evals.agents import make_any_agent

    if ":" not in name:
        try:
            return make_any_agent(name)
        except BadInput as error:
            raise BadInput(f"{error}; or package.module:factory for your own") from error
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except AutopilotError:
        raise
    except Exception as error:  # whatever the user's own module raises
        raise BadInput(f"--agent {name}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not callable(getattr(made, "propose", None)) or not isinstance(
        getattr(made, "name", None), str
    ):
        raise BadInput(
            f"--agent {name}: made {type(made).__name__}, which has no name and propose(window)"
        )
    pilot: Agent = made
    return pilot


def open_any(path: str) -> "RecordedRun":
    """A run directory or its journal, or a log that another program wrote.

    Raises:
        BadInput: It is neither, or cannot be read.
    """
    from autopilot.recording import is_run, read_run

    place = Path(path)
    if is_run(place) or not place.exists():
        return read_run(place)
    from autopilot_evals.importers import open_recording

    return open_recording(place)


class _Screen:
    """Tells a replay as a story; at a given pace with the loss as it goes."""

    def __init__(self, pace: float | None) -> None:
        self._pace = pace
        self._clock: float | None = None
        self._drawn = 0.0
        self._diverged = False
        drawn = pace is not None and console.is_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if drawn else None

    def __enter__(self) -> "_Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def watch(self, playback: "Playback", events: "Sequence[Event]") -> None:
        """Print what is new, then wait as long as the recorded run took."""
        for event in events:
            for line in self._lines(event):
                console.print(line, soft_wrap=True)
        if self._pace is None:
            return
        if self._live is not None and time.monotonic() - self._drawn >= _REFRESH:
            self._drawn = time.monotonic()
            self._live.update(_now_line(playback), refresh=True)
        if self._clock is not None:
            time.sleep(min((playback.now - self._clock) / self._pace, _LONGEST_WAIT))
        self._clock = playback.now

    def _lines(self, event: "Event") -> list[Text]:
        from autopilot.console.story import event_line

        if event.kind in _SILENT:
            return []
        if event.kind == "proposal":
            return self._proposal_lines(event)
        if event.kind in _FACTS:
            event = _as_recorded(event)
        line = event_line(event, times=False)
        if line is None:
            return []
        return [Text("recorded: ", style="green") + line if event.kind in _FACTS else line]

    def _proposal_lines(self, event: "Event") -> list[Text]:
        from autopilot.console.words import clean, interventions_words
        from autopilot.guard import changes_course
        from autopilot.schema import ProposalRecord

        record = ProposalRecord.model_validate(event.body["record"])
        proposal, verdict = record.proposal, record.verdict
        words = {"allow": "be allowed", "ask": "ask a person", "deny": "be denied"}
        line = Text()
        line.append(f"step {event.step:>6} ", style="dim")
        what = interventions_words(proposal.interventions)
        line.append(f"{record.actor} would propose: {what}", style="cyan")
        why = f"  would {words[verdict.decision]}: {clean(verdict.reason)}"
        line.append(f"{why} — {clean(proposal.rationale)}" if proposal.rationale else why, "dim")
        lines = [line]
        acts = verdict.decision == "allow" and changes_course(proposal.interventions)
        if acts and not self._diverged:
            self._diverged = True
            note = "from here on the recorded future is no longer what would have happened"
            lines.append(Text(f"            {note}", style="magenta"))
        return lines


def _as_recorded(event: "Event") -> "Event":
    """The event with the id that the proposal had in the recorded run."""
    record: dict[str, Any] = event.body.get("record") or {}
    receipt = record.get("receipt")
    if receipt is None:
        return event
    return event.model_copy(update={"body": {"record": {**record, "id": receipt["command"]}}})


def _now_line(playback: "Playback") -> Text:
    from autopilot.console.words import number, sparkline
    from autopilot.schema import metrics

    rows = playback.run.rows(last=200)
    losses = [row.values[metrics.LOSS] for row in rows if metrics.LOSS in row.values]
    line = Text(f"step {rows[-1].step if rows else 0:>6} ", style="bold")
    if losses:
        line.append(f"loss {sparkline(losses, 40)} {number(losses[-1])}")
    return line


def _summarise(report: "ReplayReport") -> None:
    verdicts = Counter(str(decision.verdict.decision) for decision in report.decisions)
    console.print(
        f"{report.rows} rows up to step {report.step}; findings: {len(report.findings)}, "
        f"episodes: {len(report.episodes)}, proposals: {verdicts.total()} ("
        f"{verdicts['allow']} allowed, {verdicts['ask']} asked about, {verdicts['deny']} denied)",
        style="bold",
        soft_wrap=True,
    )
    for remark in report.remarks:
        console.print(Text(f"  {remark}", style="dim"), soft_wrap=True)
    console.print()
