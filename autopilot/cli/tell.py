"""``tell``: an operator's guidance for whoever pilots a run."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

from autopilot.cli.output import Json, RunArgument, console, print_json
from autopilot.client import connect
from autopilot.errors import BadInput, NotARun, Refused, Unreachable
from autopilot.recording import EndedRun, is_run, read_end
from autopilot.schema import Guidance


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tell)


def tell(
    run: RunArgument,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="Guidance; without, what is in force.")
    ] = None,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", metavar="ID", help="Take guidance back, such as G2.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell the agents of a live run what you want: advice, within the policy.

    A language model that pilots reads it with every question, marked as your own
    words; the rules do not read. It changes nothing that the policy allows, asks or
    denies. It is journaled, and in force until it is withdrawn, whatever restarts.

    Examples: [bold]tell runs/a "prefer rollback over lower lr tonight"[/bold],
    [bold]tell runs/a[/bold], [bold]tell runs/a --withdraw G1[/bold].
    """
    if text is not None and withdraw is not None:
        raise BadInput("--withdraw takes guidance back; leave the text out, or tell it afterwards")
    if text is None and withdraw is None:
        _list(run, json)
        return
    try:
        with connect(run, "operator", getpass.getuser()) as live:
            said = live.tell(text) if text is not None else live.withdraw(withdraw or "")
    except (NotARun, Unreachable) as error:
        end = _ended(run, error)
        raise Refused(
            f"{run}: the run is over ({end.status} at step {end.step}); nobody is left to be guided"
        ) from error
    _show(said, json)


def _list(run: str, json: bool) -> None:
    """What is in force; of a run that is over, what was."""
    try:
        with connect(run, "viewer", "tell") as live:
            in_force = live.info().guidance
    except (NotARun, Unreachable) as error:
        in_force = _ended(run, error).guidance
    if json:
        print_json(in_force)
        return
    if not in_force:
        console.print("no guidance is in force")
    for said in in_force:
        console.print(_line(said), markup=False)


def _ended(run: str, error: NotARun | Unreachable) -> EndedRun:
    """What the journal tells where no process answers."""
    if "://" in run or not is_run(Path(run)):
        raise error
    return read_end(Path(run))


def _show(said: Guidance, json: bool) -> None:
    if json:
        print_json(said)
    elif said.withdrawn_by is not None:
        console.print(f"{said.id} withdrawn: {said.text}", markup=False)
    else:
        console.print(_line(said), markup=False)


def _line(said: Guidance) -> str:
    return f"{said.id} {said.actor} at step {said.step}: {said.text}"
