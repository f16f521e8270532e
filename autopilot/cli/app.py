"""The commands, and what becomes of an error: one clear line and exit code 2."""

import sys
from typing import Annotated, Any, NoReturn

import typer

from autopilot import __version__
from autopilot.cli import (
    act,
    ask,
    branches,
    demo,
    evaluate,
    fly,
    label,
    llm,
    look,
    mcp,
    policies,
    recordings,
    replay,
    report,
    scorecard,
    tell,
)
from autopilot.cli.output import is_of_full_output, let_go_of_output, survive_any_encoding
from autopilot.errors import AutopilotError, Unreachable

app = typer.Typer(
    name="autopilot",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="An autopilot for training runs: it watches, proposes under a policy, acts, proves, "
    "and undoes.\n\nBegin with [bold]autopilot demo[/bold]. A RUN is a run directory, or the URL "
    "of its control API with a token in AUTOPILOT_TOKEN.",
)

_UsageError: Any = typer.BadParameter.__mro__[2]
"""The base of what typer raises at a wrong argument; of its own click, or of the one installed."""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"autopilot {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


demo.register(app)
fly.register(app)
look.register(app)
act.register(app)
tell.register(app)
replay.register(app)
recordings.register(app)
report.register(app)
ask.register(app)
branches.register(app)
llm.register(app)
mcp.register(app)
evaluate.register(app)
scorecard.register(app)
label.register(app)
app.add_typer(policies.app, name="policy")


def main() -> None:
    """Run the command line."""
    survive_any_encoding()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except Unreachable as error:
        _fail(f"{error} (if the run has ended, `autopilot log` still tells its story)")
    except AutopilotError as error:
        _fail(str(error))
    except _UsageError as error:
        if not sys.argv[1:] or "NoArgs" in type(error).__name__:
            error.show()
            sys.exit(2)
        _fail(f"{error.format_message().rstrip('.')} (-h shows how it is used)")
    except typer.Abort:
        _fail("stopped; nothing was answered")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if not is_of_full_output(error):
            raise
        _fail(f"standard output cannot be written: {error.strerror}")
    finally:
        let_go_of_output()


def _fail(message: str) -> NoReturn:
    line = " ".join(message.split())
    print(f"autopilot: {line}", file=sys.stderr)
    sys.exit(2)
