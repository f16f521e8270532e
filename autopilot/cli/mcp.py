"""``mcp``: a run for MCP clients."""

import contextlib
import sys
from typing import Annotated, Literal

import typer

from autopilot.cli.output import RunArgument
from autopilot.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(mcp)


def mcp(
    run: RunArgument,
    transport: Annotated[
        Literal["stdio", "http"],
        typer.Option("--transport", help="How clients connect: as its parent, or over loopback."),
    ] = "stdio",
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="With http: where; 0 or none, any free one."),
    ] = None,
) -> None:
    """Serve a run to MCP clients: tools to read it, and one to propose.

    They read status, figures, findings, checkpoints, journal, proposals, policy.
    What they propose is judged by the run's policy; they can approve nothing.
    Of a run that is over they read what its journal tells.

    In a client's configuration: command [bold]autopilot[/bold], arguments
    [bold]mcp /path/to/runs/a[/bold]. Over http: an address and a token, printed once.
    """
    if port is not None and transport != "http":
        raise BadInput("--port: only --transport http listens on one")
    try:
        from autopilot_agents.mcp_http import serve_http
        from autopilot_agents.mcp_run import ServedRun
        from autopilot_agents.mcp_server import build_server
    except ImportError as error:
        raise BadInput(
            f"needs the extra: pip install 'training-autopilot[mcp]' ({error})"
        ) from error
    with contextlib.closing(ServedRun(run)) as served, contextlib.suppress(KeyboardInterrupt):
        if transport == "http":
            serve_http(served, port or 0, _announce)
        else:
            build_server(served).run("stdio")


def _announce(url: str, token: str) -> None:
    sys.stdout.write(f"{url}\nAuthorization: Bearer {token}\n")
    sys.stdout.flush()
