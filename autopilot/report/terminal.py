"""A report in the terminal."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autopilot.report.document import (
    Block,
    Document,
    Entry,
    Errand,
    Facts,
    Grid,
    Paragraph,
    Picture,
)
from autopilot.report.picture import bars

_TONES = {"healthy": "bold green", "rescued": "bold green", "needs_you": "bold red"}


def to_terminal(document: Document) -> RenderableType:
    """The whole report."""
    shown: list[RenderableType] = [
        Text(document.title, style="dim"),
        Text(document.headline, style=_TONES[document.standing]),
    ]
    for part in document.parts:
        shown += [Text(), Text(part.title, style="bold")]
        shown += [Padding(_block(block), (0, 0, 0, 2)) for block in part.blocks]
    return Group(*shown)


def _block(block: Block) -> RenderableType:
    match block:
        case Paragraph(text):
            return Text(text)
        case Facts(lines):
            return _facts(lines)
        case Entry(title, lines):
            return Group(Text(title, style="cyan"), Padding(_facts(lines), (0, 0, 0, 2)))
        case Errand(what, command):
            typed = [] if command is None else [Text(f"  {command}", style="dim")]
            return Group(Text(what), *typed)
        case Grid(head, rows):
            table = Table(box=None, pad_edge=False, header_style="dim")
            for name in head:
                table.add_column(name)
            for row in rows:
                table.add_row(*map(Text, row))
            return table
        case Picture(course, caption):
            return Group(Text(bars(course)), Text(caption, style="dim"))


def _facts(lines: Iterable[tuple[str, str]]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in lines:
        table.add_row(Text(name), Text(value))
    return table
