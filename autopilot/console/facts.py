"""Labelled facts: in a frame for the eye, or one a line for a screen reader or a log."""

from collections.abc import Sequence
from math import isfinite
from typing import Literal

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autopilot.console.words import clean, number, sparkline

Fact = tuple[str, str]
"""A label, and what there is to say."""
Look = Literal["drawn", "plain"]

_FRAME = 30
"""Columns that labels, a frame and a figure beside a curve take."""


def facts_view(title: str, facts: Sequence[Fact], look: Look) -> RenderableType:
    """Facts under a title; text of the run cannot steer the terminal.

    Args:
        title: What they are about.
        facts: In order; a label that comes again is drawn once.
        look: How to show them.
    """
    told = [(clean(label), clean(words)) for label, words in facts]
    if look == "plain":
        lines = [Text(f"{label}: {words}") for label, words in told]
        return Group(Text(clean(title)), *lines)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    last = ""
    for label, words in told:
        table.add_row("" if label == last else label, Text(words))
        last = label
    return Panel(table, title=Text(clean(title)), title_align="left")


def course(values: Sequence[float], look: Look, width: int) -> str:
    """How a metric went: as bars in a terminal of so many columns, or in words."""
    if not values:
        return "none yet"
    last = number(values[-1])
    if look == "drawn":
        return f"{sparkline(values, max(8, min(50, width - _FRAME)))}  {last}"
    words = f"{last} now, {number(values[len(values) // 2])} halfway through what is shown, "
    words += f"{number(values[0])} at its start"
    finite = [value for value in values if isfinite(value)]
    return f"{words}, lowest {number(min(finite))}" if finite else words
