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


def course(points: Sequence[tuple[int, float]], look: Look, width: int) -> str:
    """How a metric went: as bars in a terminal of so many columns, or in words.

    Args:
        points: Step and value, in order.
        look: How to show it.
        width: Columns of the terminal.
    """
    if not points:
        return "none yet"
    values = [value for _, value in points]
    if look == "drawn":
        bars = sparkline(values, max(8, min(50, width - _FRAME)))
        return f"{bars}  {number(values[-1])}"
    earlier = dict.fromkeys((points[len(points) // 2], points[0]))
    words = [f"{number(values[-1])} at step {points[-1][0]}"]
    words += [f"was {number(v)} at step {s}" for s, v in earlier if s != points[-1][0]]
    finite = [value for value in values if isfinite(value)]
    words += [f"lowest {number(min(finite))}, highest {number(max(finite))}"] if finite else []
    return ", ".join(words)
