"""``ask``: a question about a run, answered from its journal by a language model."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from autopilot.cli.output import Json, RunArgument, console, print_json

if TYPE_CHECKING:
    from autopilot_agents.llm.answering import Answered, Cited


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ask)


def ask(
    run: RunArgument,
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="As its server calls it; else AUTOPILOT_LLM_MODEL."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", help="Of an OpenAI-compatible server; else OpenAI's own."),
    ] = None,
    json: Json = False,
) -> None:
    """Ask about a run, live or over; a language model answers from its journal.

    It reads and does nothing else: nothing is posted to the run, and a viewer's token
    is enough. Every figure that it cites is looked up in the journal: ✓ stands there,
    ✗ does not. Exit code 1 where the model gave no usable answer.

    Example: [bold]ask runs/a "why did the loss jump at 14k?"[/bold].
    """
    from autopilot_agents.llm.answering import ask as ask_model
    from autopilot_agents.llm.archive import open_archive
    from autopilot_agents.llm.settings import read_settings

    settings = read_settings(model=model, base_url=base_url)
    with open_archive(run) as archive:
        told = ask_model(settings, archive, question)
    if json:
        print_json({"answered": told.answered, **told.model_dump()})
    elif told.answered:
        _print(told)
    else:
        print(f"autopilot: no answer ({told.outcome}): {told.text}", file=sys.stderr)
    raise typer.Exit(0 if told.answered else 1)


def _print(told: "Answered") -> None:
    if told.outcome == "cannot_tell":
        console.print("The journal does not tell:", style="bold")
    console.print(told.text, markup=False)
    for cited in told.citations:
        console.print(_citation(cited), markup=False, style=None if cited.checked else "red")
    if told.unknown_numbers:
        numbers = ", ".join(told.unknown_numbers[:8])
        console.print(f"✗ not among what it was shown: {numbers}", markup=False, style="red")
    usage = told.usage
    price = "unknown" if usage.price_usd is None else f"${usage.price_usd:.4f}"
    console.print(
        f"({told.model} at {told.host}: {usage.calls} requests, {told.lookups} look-ups, "
        f"{usage.input_tokens} tokens in, {usage.output_tokens} out, price {price}, "
        f"{usage.seconds:.1f} s)",
        markup=False,
        soft_wrap=True,
        style="dim",
    )


def _citation(cited: "Cited") -> str:
    if cited.checked:
        return f"✓ {cited.cited}  {cited.note}"
    return f"✗ NOT VERIFIED  {cited.note}"
