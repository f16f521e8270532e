"""A person's own hands: what changes a run, and what decides over changes."""

import getpass
import time
import uuid
from typing import Annotated

import typer

from autopilot.cli.output import Json, RunArgument, console, look, print_json
from autopilot.client import HttpRun, connect
from autopilot.console.typed import make_intervention, parse_values
from autopilot.console.words import change_words, interventions_words, proof_words
from autopilot.errors import Refused, Unreachable
from autopilot.schema import Consultation, ProposalRecord

ProposalArgument = Annotated[str, typer.Argument(metavar="ID", help="A proposal, such as P3.")]
Wait = Annotated[
    float, typer.Option("--wait", help="Seconds to wait until it is applied and read back.")
]
_LATELY = 900
"""Journal events that are looked through for what was said of a proposal."""
_SETTLED = frozenset({"denied", "expired", "rejected", "kept", "reverted"})


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(do)
    app.command()(pending)
    app.command()(approve)
    app.command()(deny)
    app.command()(undo)
    app.command()(confirm)
    app.command("reset-breaker")(reset_breaker)


def do(
    run: RunArgument,
    kind: Annotated[str, typer.Argument(help="The intervention, such as scale_lr.")],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE…", help="Its values.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why, for the journal.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Go past the policy's limits; asks for the run's name.")
    ] = False,
    wait: Wait = 30.0,
    json: Json = False,
) -> None:
    """Intervene yourself: capabilities and limits hold, no approval is needed.

    Examples: [bold]do runs/a scale_lr factor=0.5[/bold], [bold]do runs/a rollback
    checkpoint=last_good skip_batches=200[/bold], [bold]do runs/a pause[/bold].
    """
    intervention = make_intervention(kind, parse_values(values or []))
    with _operator(run) as live:
        if force:
            name = live.info().name
            typed = typer.prompt(f"Type the run's name ({name}) to go past the policy's limits")
            if typed != name:
                raise Refused("not forced: that is not the run's name; nothing was changed")
        record = live.command((intervention,), key=uuid.uuid4().hex, rationale=reason, force=force)
        _show(_followed(live, record, wait), json)


def pending(run: RunArgument, json: Json = False) -> None:
    """List the proposals that wait for a person."""
    from autopilot.console.question import advice_view, question_view
    from autopilot.policy import parse_policy
    from autopilot.window import build_window

    with connect(run, "viewer", "pending") as live:
        records = list(live.proposals("pending"))
        if json:
            print_json(records)
            return
        if not records:
            console.print("nothing waits for a person")
        episodes = {episode.id: episode for episode in (*live.closed(), *live.episodes())}
        reviews, policy = _reviews(live), parse_policy(live.policy_text())
        for record in records:
            episode = episodes.get(record.proposal.episode or "")
            window = build_window(live, episode)
            console.print(question_view(record, window, policy, look(), console.width))
            for review in reviews.get(record.id, ()):
                console.print(advice_view(review, look()))
            console.print(
                f"autopilot approve {run} {record.id}   or   autopilot deny {run} {record.id}"
            )


def _reviews(live: HttpRun) -> dict[str, list[Consultation]]:
    """What models said of proposals lately."""
    found: dict[str, list[Consultation]] = {}
    for event in live.events(max(0, live.info().seq - _LATELY)):
        if event.kind == "consultation":
            asked = Consultation.model_validate(event.body["consultation"])
            if asked.purpose == "review" and asked.proposal is not None:
                found.setdefault(asked.proposal, []).append(asked)
    return found


def approve(
    run: RunArgument,
    proposal: ProposalArgument,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why, for the journal.")] = "",
    wait: Wait = 30.0,
    json: Json = False,
) -> None:
    """Approve a proposal that waits."""
    with _operator(run) as live:
        record = live.proposal(proposal)
        record = live.decide(record.id, "approve", digest=record.digest, reason=reason)
        _show(_followed(live, record, wait), json)


def deny(
    run: RunArgument,
    proposal: ProposalArgument,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why, for the journal.")] = "",
    json: Json = False,
) -> None:
    """Deny a proposal that waits; nothing is changed."""
    with _operator(run) as live:
        record = live.proposal(proposal)
        record = live.decide(record.id, "deny", digest=record.digest, reason=reason)
        _show(record, json)


def undo(
    run: RunArgument, proposal: ProposalArgument, wait: Wait = 30.0, json: Json = False
) -> None:
    """Undo what an applied proposal changed, by its stored inverse."""
    with _operator(run) as live:
        _show(_followed(live, live.revert(proposal), wait), json)


def confirm(run: RunArgument, proposal: ProposalArgument, json: Json = False) -> None:
    """Keep what an applied proposal changed, whatever its canary or lease says later."""
    with _operator(run) as live:
        _show(live.confirm(proposal), json)


def reset_breaker(run: RunArgument, json: Json = False) -> None:
    """Let the policy's rules judge again after interventions that made things worse.

    Until then everything that an agent proposes waits for a person.
    """
    with _operator(run) as live:
        was_open = live.info().breaker_open
        if was_open:
            live.reset_breaker()
        if json:
            print_json({"was_open": was_open, "open": False})
        elif was_open:
            console.print("the breaker is reset: the policy's rules judge again")
        else:
            console.print("the breaker is not open; nothing was changed")


def _operator(run: str) -> HttpRun:
    return connect(run, "operator", getpass.getuser())


def _followed(live: HttpRun, record: ProposalRecord, wait: float) -> ProposalRecord:
    """The record once it is applied and read back, or once the time is over."""
    until = time.monotonic() + wait
    while time.monotonic() < until:
        proven = record.receipt is not None and record.receipt.proven is not None
        if proven or record.status in _SETTLED:
            break
        try:
            # A paused run applies what is queued, but makes no step to read it back at.
            if record.status == "applied" and live.info().status == "paused":
                break
            time.sleep(0.1)
            record = live.proposal(record.id)
        except Unreachable:  # the run has ended meanwhile
            break
    return record


def _show(record: ProposalRecord, json: bool) -> None:
    if json:
        print_json(record)
        return
    what = interventions_words(record.proposal.interventions)
    console.print(f"{record.id} {record.status}: {what}", markup=False)
    if record.receipt is not None:
        for words in change_words(record.receipt):
            console.print(f"  {words}", markup=False)
        console.print(f"  {proof_words(record.receipt)}", markup=False)
    if record.reason:
        console.print(f"  {record.reason}", markup=False)
