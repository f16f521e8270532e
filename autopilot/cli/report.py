"""``report``: what happened to a run while nobody watched."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autopilot.cli.output import Json, RunArgument, console, print_json
from autopilot.console.words import clean
from autopilot.errors import BadInput
from autopilot.schema import Capabilities, Consultation, RunInfo, Window

if TYPE_CHECKING:
    from autopilot.report import Account, Document
    from autopilot_agents.llm.agent import LLMAgent

_WIDTH = 200
"""Columns of the report that a model is shown."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    run: RunArgument,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Only the last so long, such as 8h or 30m; else all of it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write it to a file, as its name ends: .md or .html."),
    ] = None,
    llm: Annotated[
        bool,
        typer.Option("--llm", help="Begin with a summary in a model's words; AUTOPILOT_LLM_*."),
    ] = False,
    json: Json = False,
) -> None:
    """Tell what happened to a run overnight, live or over: the morning report.

    The verdict in one line: healthy, rescued, or needs you. Then what waits for
    you, how the loss went, what was wrong, what was done with which proof and
    effect, what was wanted and refused, what language models cost.

    Examples: [bold]report runs/a --since 8h[/bold], [bold]report runs/a -o a.html[/bold].
    """
    from autopilot.report import make_report, read_account, tell

    render = None if out is None else _renderer(out)
    teller = _teller() if llm else None
    account = read_account(run)
    made = make_report(account, _seconds(since))
    told, said = tell(made), None
    if teller is not None:
        said = _said(teller, account, told)
        told = _begun_with(told, said)
    if out is not None and render is not None:
        _write(out, render(told))
    if json:
        print_json(made if said is None else made.model_dump() | {"words": said})
    elif out is not None:
        console.print(f"{made.headline}\n{out}", markup=False)
    else:
        from autopilot.report.terminal import to_terminal

        console.print(to_terminal(told))


def _teller() -> "LLMAgent":
    from autopilot_agents.llm.agent import LLMAgent
    from autopilot_agents.llm.settings import read_settings

    return LLMAgent(read_settings())


def _said(teller: "LLMAgent", account: "Account", told: "Document") -> Consultation:
    """The report in a model's words; it is shown no more than a person is."""
    from rich.console import Console

    from autopilot.report.terminal import to_terminal

    page = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
    with page.capture() as text:
        page.print(to_terminal(told))
    info = account.info or RunInfo(
        name=account.name,
        run_id=account.run_id,
        status="ended",
        step=0,
        state_version=0,
        seq=0,
        started=0.0,
        capabilities=Capabilities(),
        policy_digest="",
        autonomy="observe",
        llm_usd_per_day=math.inf,  # nobody pilots it any more, so it is the reader's own money
    )
    nothing = Window(run=info, episode=None, findings=(), summaries=(), table=(), checkpoints=())
    return teller.report(text.get().splitlines(), nothing)


def _begun_with(told: "Document", said: Consultation) -> "Document":
    from autopilot.report.document import Paragraph, Part

    usage = said.usage
    price = "unknown" if usage.price_usd is None else f"${usage.price_usd:.4f}"
    by = f"{clean(said.model, 200)}, {usage.seconds:.1f} s, price {price}"
    if said.outcome != "report":
        words = f"The model gave no summary ({said.outcome}): {clean(said.text)}"
    else:
        words = clean(said.text)
        if said.unverified:
            by += f"; {said.unverified} of its figures are not in this report"
    part = Part("In a few words", (Paragraph(words), Paragraph(f"({by})")))
    return replace(told, parts=(part, *told.parts))


def _seconds(since: str | None) -> float | None:
    if since is None:
        return None
    from pydantic import TypeAdapter, ValidationError

    from autopilot.policy import Duration

    try:
        seconds = TypeAdapter[float](Duration).validate_python(since)
    except ValidationError as error:
        raise BadInput(f"--since {since}: expected a duration such as 8h, 30m or 2d") from error
    if seconds <= 0:
        raise BadInput(f"--since {since}: expected a duration above zero, such as 8h")
    return seconds


def _renderer(out: Path) -> "Callable[[Document], str]":
    from autopilot.report.markdown import to_markdown
    from autopilot.report.page import to_html

    known = {".md": to_markdown, ".html": to_html}
    if out.suffix not in known:
        raise BadInput(f"-o {out}: expected a name that ends in .md or .html")
    return known[out.suffix]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"-o {path}: cannot be written: {error.strerror}") from error
