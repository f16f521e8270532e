"""The picture of an episode: the series, what was labelled, and beneath it who said what."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from autopilot_evals.report.courses import Mark
from autopilot_evals.report.drawing import (
    ALARM,
    FINDING,
    LABEL,
    PROPOSAL,
    SERIES,
    embed,
    figure,
    free_sides,
    shorten,
    styled,
)
from autopilot_evals.report.excerpts import Excerpt
from autopilot_evals.report.markup import Html

_WIDTH, _HEIGHT, _LANE = 5.6, 2.3, 0.22
_LETTER = 0.0135
"""Width of a letter in the lanes, as a share of the picture."""
_FEW_POINTS = 60
"""With fewer each is a dot of its own: a line alone hides where rows are."""
_GAP = 0.012
_COLOURS = {"finding": FINDING, "alarm": ALARM, "to act": ALARM}


def draw_episode(excerpt: Excerpt, name: str, description: str) -> Html:
    """Draw an excerpt; the axis counts rows and names their steps, for detectors see rows.

    Args:
        excerpt: What to show.
        name: Unique on its page.
        description: For those who cannot see the picture.
    """
    lanes = excerpt.lanes
    with styled():
        whole = figure(_WIDTH, _HEIGHT + _LANE * (len(lanes) + 1))
        above, below = whole.subplots(
            2, 1, sharex=True, height_ratios=(_HEIGHT, _LANE * len(lanes)), squeeze=True
        )
        _draw_series(above, excerpt)
        _draw_lanes(below, excerpt)
        return embed(whole, name, description)


def _draw_series(axes: Axes, excerpt: Excerpt) -> None:
    for span in excerpt.spans:
        first, last = max(span.first, excerpt.first), min(span.last, excerpt.last)
        axes.axvspan(
            first - 0.5, last + 0.5, color=LABEL, alpha=0.35 if span.main else 0.15, linewidth=0
        )
    if excerpt.focus is not None:
        axes.axvline(excerpt.focus, color=ALARM, linestyle="--", linewidth=1)
    if excerpt.points:
        rows, values = zip(*excerpt.points, strict=True)
        dots = "." if len(rows) < _FEW_POINTS else ""
        axes.plot(rows, values, color=SERIES, linewidth=1.1, marker=dots, markersize=4)
    if excerpt.broken:
        axes.plot(
            excerpt.broken,
            [0.97] * len(excerpt.broken),
            "x",
            color=ALARM,
            markersize=4,
            transform=axes.get_xaxis_transform(),
        )
    if excerpt.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(shorten(excerpt.metric or "no figure", 28))
    axes.tick_params(axis="x", labelbottom=False)


def _draw_lanes(axes: Axes, excerpt: Excerpt) -> None:
    names = list(excerpt.lanes)
    for lane, name in enumerate(names):
        colour = _COLOURS.get(name, PROPOSAL)
        marks = excerpt.lanes[name]
        axes.plot(
            [mark.row for mark in marks], [lane] * len(marks), "|", color=colour, markersize=8
        )
        _write_marks(axes, marks, lane, colour, excerpt)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [shorten(name, 14) for name in names])
    axes.set_xlim(excerpt.first - 0.5, excerpt.last + 0.5)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda row, _: _step_at(excerpt, row)))
    axes.set_xlabel("step, a place for each row recorded")


def _write_marks(
    axes: Axes, marks: Sequence[Mark], lane: int, colour: str, excerpt: Excerpt
) -> None:
    """What each mark says, beside it where there is room; the caption says it all."""
    whole = max(len(excerpt.steps), 1)
    texts = [shorten(mark.text, 24) for mark in marks]
    places = [(mark.row - excerpt.first) / whole for mark in marks]
    sides = free_sides(places, [_LETTER * len(text) + 2 * _GAP for text in texts])
    for place, text, side in zip(places, texts, sides, strict=True):
        if side is not None:
            axes.text(
                place + (_GAP if side == "right" else -_GAP),
                lane,
                text,
                transform=axes.get_yaxis_transform(),
                horizontalalignment="left" if side == "right" else "right",
                verticalalignment="center",
                color=colour,
                fontsize=7.5,
            )


def _step_at(excerpt: Excerpt, row: float) -> str:
    at = round(row) - excerpt.first
    return f"{excerpt.steps[at]:,}" if 0 <= at < len(excerpt.steps) else ""
