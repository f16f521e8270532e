"""``autopilot demo``: watch a sick training being rescued."""

from pathlib import Path
from typing import Annotated

import typer

from autopilot.cli.output import Json, console, look, print_json, somebody_is_here, warn
from autopilot.cli.signals import unwound
from autopilot.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    scenario: Annotated[
        str, typer.Option("--scenario", help="What is wrong; 'list' names them all.")
    ] = "lr-too-high",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Varies what should not matter.")] = 0,
    ask: Annotated[bool, typer.Option("--ask", help="Every intervention asks you first.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A short one, to check the set-up.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to record; default autopilot-demo/…")
    ] = None,
    agent: Annotated[str, typer.Option("--agent", help="Who pilots: rules or observe.")] = "rules",
    json: Json = False,
) -> None:
    """Train a small model on real text three times: left alone, piloted, and as it should be.

    The default has a learning rate far too high. The pilot sees only what the run reports.
    """
    from autopilot_evals.scenarios import SCENARIOS

    if scenario == "list":
        _list(json)
        return
    if scenario not in SCENARIOS:
        known = ", ".join(SCENARIOS)
        raise BadInput(f"--scenario {scenario}: no such scenario; known: {known}")
    from autopilot_agents.known import make_agent
    from autopilot_evals.demo.flight import Flight, flight_folder
    from autopilot_evals.demo.summary import as_json, draw_picture, print_summary
    from autopilot_evals.demo.view import LiveView

    chosen, pilot = SCENARIOS[scenario], make_agent(agent)
    where = flight_folder(folder, scenario, seed)
    flight = Flight(
        scenario=chosen,
        seed=seed,
        steps=chosen.smoke_steps if smoke else chosen.steps,
        folder=where,
        agent=pilot,
        policy=_asking_policy(where) if ask else None,
    )
    asking = ask and not json and somebody_is_here()
    if ask and not asking:
        pilot_dir = flight.arms["pilot"].run_dir
        warn(f"--ask: nobody can be asked here; what waits shows `autopilot pending {pilot_dir}`")
    if asking:
        from autopilot.console.approver import TerminalApprover
        from autopilot.policy import read_policy

        flight.approver = lambda launched: TerminalApprover(
            launched.connect("operator", "terminal"), read_policy(flight.policy), console, look()
        )
    if not json:
        console.print(f"[bold]{chosen.title}[/bold]: {chosen.summary}\n")
    # A prompt and a redrawn screen do not go together: with --ask the story is printed as it comes.
    drawn = not ask and look() == "drawn"
    with (
        unwound(),
        LiveView(flight, console, quiet=json, draw=drawn, asking=asking) as view,
    ):
        flight.fly(view.watch)
    picture = draw_picture(flight, where / "picture.png")
    if json:
        print_json(as_json(flight, picture))
    else:
        print_summary(flight, console, picture)


def _list(json: bool) -> None:
    from autopilot_evals.scenarios import SCENARIOS

    if json:
        print_json(
            [{"name": s.name, "family": s.family, "title": s.title} for s in SCENARIOS.values()]
        )
        return
    for scenario in SCENARIOS.values():
        console.print(f"{scenario.name:<22} {scenario.family:<10} {scenario.title}", markup=False)


def _asking_policy(folder: Path) -> Path:
    """The default policy, but every intervention asks, and training waits a while for it."""
    from autopilot.policy import DEFAULT_POLICY

    text = DEFAULT_POLICY.replace('autonomy = "act"', 'autonomy = "suggest"')
    for name, before, after in (
        ("hold_on_alarm", "10s", "2m"),
        ("ttl", "15m", "2m"),
        ("on_expiry", "hold", "nothing"),
    ):
        text = text.replace(f'{name} = "{before}"', f'{name} = "{after}"')
    path = folder / "policy.toml"
    path.write_text(text)
    return path
