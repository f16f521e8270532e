"""How commands print: for people through rich, for programs as JSON."""

import codecs
import contextlib
import errno
import io
import os
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_json
from rich.console import Console, ConsoleDimensions

if TYPE_CHECKING:
    from autopilot.console.facts import Look

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run directory, or the URL of its control API.")
]

_SAYS_ALL = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
_PLAIN = os.environ.get("AUTOPILOT_PLAIN", "0") not in ("", "0") or not _SAYS_ALL
_OTHERWISE = {"→": "->", "—": "-", "…": "...", "“": '"', "”": '"'}
_STYLED = not _PLAIN and not os.environ.get("NO_COLOR")


class _Console(Console):
    """Rich's, at its true width: rich takes every dumb terminal for 80 columns wide."""

    @property  # type: ignore[misc]  # which can be set in rich; nobody does
    def size(self) -> ConsoleDimensions:
        if self.is_dumb_terminal:
            return ConsoleDimensions(*shutil.get_terminal_size((80, 25)))
        return super().size

    def on_broken_pipe(self) -> None:
        """Nobody reads any more: print nothing more, and leave the rest to the command.

        Raises:
            BrokenPipeError: Always; rich itself would exit, whatever else is under way.
        """
        try:
            super().on_broken_pipe()
        except SystemExit as stop:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from stop


console = _Console(highlight=False, color_system="auto" if _STYLED else None, soft_wrap=_PLAIN)


def survive_any_encoding() -> None:
    """Print ``->``, ``-`` or ``?`` for what standard output cannot say; it would fail otherwise."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("autopilot", _otherwise)
        sys.stdout.reconfigure(errors="autopilot")


def _otherwise(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError), "it is for output"
    unsayable = error.object[error.start : error.end]
    return "".join(_OTHERWISE.get(character, "?") for character in unsayable), error.end


def is_of_full_output(error: OSError) -> bool:
    """Whether standard output takes no more, as where it is a file on a full disk."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def let_go_of_output() -> None:
    """Give up what standard output did not take, so that the exit code stays ours.

    The interpreter would try again as it ends, and fail with a code of its own.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(words: str) -> None:
    """Say on standard error what went wrong; where nobody reads it, go on all the same."""
    with contextlib.suppress(OSError):
        print(f"autopilot: {words}", file=sys.stderr, flush=True)


def somebody_is_here() -> bool:
    """Whether a person can see a question and answer it.

    What is typed to a question that went to a file is no answer.
    """
    return sys.stdin.isatty() and sys.stdout.isatty()


def look() -> "Look":
    """How people are shown things: drawn, or plainly.

    Plainly where ``AUTOPILOT_PLAIN`` asks for it, or standard output cannot say what is drawn with.
    """
    return "plain" if _PLAIN else "drawn"


def print_json(value: Any, *, line: bool = False) -> None:
    """Print records and plain values as JSON, on one line where lines are read one by one.

    NaN and infinities come as the strings "NaN", "Infinity" and "-Infinity". It is UTF-8 in
    every locale.
    """
    sys.stdout.flush()
    text = to_json(value, indent=None if line else 2, inf_nan_mode="strings")
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.buffer.flush()
