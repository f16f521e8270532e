"""How commands print: for people through rich, for programs as JSON."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run directory, or the URL of its control API.")
]

console = Console(highlight=False)


def plain(value: Any) -> Any:
    """Records as JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def print_json(value: Any, *, line: bool = False) -> None:
    """Print a value as JSON, on one line where lines are read one by one."""
    json.dump(plain(value), sys.stdout, indent=None if line else 2)
    sys.stdout.write("\n")
    sys.stdout.flush()
