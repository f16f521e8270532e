"""``autopilot llm``: try the language model that is configured."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopilot.cli.output import Json, console, print_json
from autopilot.schema import NoProposal, Proposal

if TYPE_CHECKING:
    from autopilot_agents.llm.agent import LLMAgent

_ANSWERED = frozenset({"benign", "waiting", "cannot_tell"})
"""Reasons to wait that a model gives; every other kind is a fault on the way to it."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    models = typer.Typer(help="Try the language model that is configured.", no_args_is_help=True)
    models.command()(check)
    app.add_typer(models, name="llm")


def check(
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
    """Ask the model about one made-up episode, and say what works.

    Nothing of a run is sent and nothing is changed; it costs one decision. The key comes from
    AUTOPILOT_LLM_API_KEY. Exit code 1 where the model gave no usable answer.
    """
    from autopilot_agents.llm.agent import LLMAgent
    from autopilot_agents.llm.settings import read_settings
    from autopilot_agents.llm.specimen import specimen

    agent = LLMAgent(read_settings(model=model, base_url=base_url))
    answer = agent.propose(specimen())
    works = isinstance(answer, Proposal) or answer.kind in _ANSWERED
    found = _found(agent, answer, works)
    if json:
        print_json(found)
    else:
        for name, value in found.items():
            console.print(f"{name.replace('_', ' '):<18} {_words(value)}", markup=False)
    raise typer.Exit(0 if works else 1)


def _found(agent: "LLMAgent", answer: Proposal | NoProposal, works: bool) -> dict[str, Any]:
    asked = agent.consultations()
    course, usage = agent.course, agent.usage()
    said = asked[-1] if asked else None
    return {
        "works": works,
        "model": agent.model,
        "host": said.host if said else None,
        "answer": answer,
        "reason": said.text if said else _reason(answer),
        "structured_output": _structured(works, course.repairs if course else 0),
        "lookups": course.lookups if course else 0,
        "requests": usage.calls if usage else 0,
        "seconds": usage.seconds if usage else 0.0,
        "tokens_in": usage.input_tokens if usage else 0,
        "tokens_cached": usage.cached_tokens if usage else 0,
        "tokens_out": usage.output_tokens if usage else 0,
        "price_usd": usage.price_usd if usage else None,
        "prompt": said.prompt if said else None,
        "prompt_sha": agent.prompt_sha,
    }


def _reason(answer: Proposal | NoProposal) -> str:
    return answer.rationale if isinstance(answer, Proposal) else answer.reason


def _structured(works: bool, repairs: int) -> str:
    if not works:
        return "no"
    return "yes" if repairs == 0 else f"after {repairs} repair{'s' if repairs > 1 else ''}"


def _words(value: Any) -> str:
    from autopilot.console.words import clean, interventions_words

    match value:
        case Proposal():
            return f"proposes: {interventions_words(value.interventions)}"
        case NoProposal():
            return f"no proposal ({value.kind})"
        case bool():
            return "yes" if value else "no"
        case None:
            return "unknown"
        case _:
            return clean(str(value))
