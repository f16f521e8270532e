"""Pictures as SVG that takes its colours and its text from the page around it."""

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure

from autopilot_evals.report.markup import Html, tag

_STAND_INS = {
    "ink": "#010101",
    "faint": "#020202",
    "rule": "#030303",
    "series": "#040404",
    "label": "#050505",
    "alarm": "#060606",
    "finding": "#070707",
    "proposal": "#080808",
}
"""Colours that a page fills in, for matplotlib knows no variables."""

INK, FAINT, RULE, SERIES, LABEL, ALARM, FINDING, PROPOSAL = _STAND_INS.values()

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "text.color": INK,
    # A name in a recording may hold dollars; it is no formula.
    "text.parse_math": False,
}


def figure(width: float, height: float) -> Figure:
    """An empty picture.

    Args:
        width: Inches; the text is nine points high.
        height: Inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def styled() -> AbstractContextManager[None]:
    """Within it whatever is drawn has the page's style; it ends as it began."""
    return mpl.rc_context(_STYLE)


def embed(drawn: Figure, name: str, description: str) -> Html:
    """A picture as markup.

    Args:
        drawn: The picture, made within :func:`styled`.
        name: Unique on its page, for the identities within the picture.
        description: What it shows, for those who cannot see it.
    """
    out = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        unsigned = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn.savefig(out, format="svg", metadata=unsigned)
    svg = _alone(out.getvalue())
    return tag("div", Html(svg), role="img", aria_label=description)


def _alone(document: str) -> str:
    """The picture out of its document: sized by its page, coloured by it."""
    svg = document[document.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height|xmlns(?::\w+)?|version)="[^"]*"', "", head)
    rest = re.sub(
        r'\sid="(?:figure|axes|patch|line2d|text|matplotlib\.axis|\w+tick|\w+Collection)_\d+"',
        "",
        rest,
    )
    for variable, colour in _STAND_INS.items():
        rest = rest.replace(colour, f"var(--{variable})")
    return f"{head}>{rest}"


def shorten(text: str, most: int) -> str:
    """A text that is at most so many letters long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def free_sides(
    places: Sequence[float], widths: Sequence[float]
) -> list[Literal["right", "left"] | None]:
    """On which side of each mark of a line its text finds room, if on any.

    Args:
        places: Where the marks stand, from 0 to 1 and in order.
        widths: Of their texts.

    >>> free_sides([0.1, 0.35, 0.4], [0.2, 0.2, 0.2])
    ['right', None, 'right']
    """
    sides: list[Literal["right", "left"] | None] = []
    taken = 0.0
    for at, (place, width) in enumerate(zip(places, widths, strict=True)):
        following = places[at + 1] if at + 1 < len(places) else 1.0
        if place + width <= following:
            sides.append("right")
        elif taken + width <= place:
            sides.append("left")
        else:
            sides.append(None)
        taken = place + width if sides[-1] == "right" else place
    return sides
