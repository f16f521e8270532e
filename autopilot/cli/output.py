"""How commands print: for people through rich, for programs as JSON."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_json
from rich.console import Console

if TYPE_CHECKING:
    from autopilot.console.facts import Look

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run directory, or the URL of its control API.")
]

_PLAIN = os.environ.get("AUTOPILOT_PLAIN", "0") not in ("", "0")

console = Console(highlight=False, color_system=None if _PLAIN else "auto")


def look() -> "Look":
    """How people are shown things: drawn, or plainly where ``AUTOPILOT_PLAIN`` asks for it."""
    return "plain" if _PLAIN else "drawn"


def print_json(value: Any, *, line: bool = False) -> None:
    """Print records and plain values as JSON, on one line where lines are read one by one.

    NaN and infinities come as the strings "NaN", "Infinity" and "-Infinity".
    """
    text = to_json(value, indent=None if line else 2, inf_nan_mode="strings").decode()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
