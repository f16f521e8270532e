"""``report``: what happened to a run while nobody watched."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autopilot.cli.output import Json, RunArgument, console, print_json
from autopilot.errors import BadInput

if TYPE_CHECKING:
    from autopilot.report import Document


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
    account = read_account(run)
    made = make_report(account, _seconds(since))
    if out is not None and render is not None:
        _write(out, render(tell(made)))
    if json:
        print_json(made)
    elif out is not None:
        console.print(f"{made.headline}\n{out}", markup=False)
    else:
        from autopilot.report.terminal import to_terminal

        console.print(to_terminal(tell(made)))


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
