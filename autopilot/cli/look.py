"""``status`` and ``log``: reading a run, live or past."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from autopilot.cli.output import Json, RunArgument, console, look, print_json
from autopilot.client import HttpRun, connect
from autopilot.errors import NotARun, Unreachable
from autopilot.schema import Event


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(log)


def status(run: RunArgument, json: Json = False) -> None:
    """Show a run: where it is, what is in force, what is wrong, what waits.

    Of a run whose process is gone, what its journal tells.
    """
    from autopilot.console.story import status_view

    try:
        with connect(run, "viewer", "status") as live:
            info, episodes = live.info(), list(live.episodes())
            proposals, rows = list(live.proposals()), list(live.rows(last=200))
    except (NotARun, Unreachable):
        if not (Path(run) / "journal.sqlite").exists():
            raise
        _last_status(Path(run), json)
        return
    if json:
        print_json({"run": info, "episodes": episodes, "proposals": proposals})
        return
    console.print(status_view(info, rows, episodes, proposals, look(), console.width))


def _last_status(folder: Path, json: bool) -> None:
    from autopilot.console.story import ended_view
    from autopilot.recording import read_end

    end = read_end(folder)
    if json:
        names = ("name", "run_id", "status", "reason", "step", "branch", "guidance")
        identity = {name: getattr(end, name) for name in names}
        print_json({"run": identity, "episodes": end.episodes, "proposals": end.proposals})
        return
    console.print(ended_view(end, look(), console.width))


def log(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
    json: Json = False,
) -> None:
    """Tell a run's journal as a story: findings, proposals, verdicts, receipts, outcomes.

    Works on the directory of a run that has ended, too.
    """
    from autopilot.console.story import print_story

    for event in _events(run, follow):
        if json:
            print_json(event, line=True)
        else:
            print_story(console, [event])


def _events(run: str, follow: bool) -> Iterator[Event]:
    folder = Path(run)
    journal = folder / "journal.sqlite"
    if "://" not in run and not journal.exists():
        words = "holds no journal" if folder.is_dir() else "no such run directory"
        raise NotARun(f"{run}: {words}")
    if journal.exists() and not follow:
        from autopilot.journal import Journal

        with Journal.read(journal) as reader:
            yield from reader.events()
        return
    with connect(run, "viewer", "log") as live:
        seq = 0
        while True:
            try:
                events = live.events(seq, wait=5.0 if follow else 0.0)
            except Unreachable:
                if seq == 0:
                    raise
                return
            yield from events
            if events:
                seq = events[-1].seq
            elif not follow:
                return
            if any(event.kind == "run_ended" for event in events) and _is_over(live):
                return


def _is_over(live: HttpRun) -> bool:
    """Whether no later process goes on with the run."""
    try:
        return live.info().status in ("ended", "failed")
    except Unreachable:
        return True
