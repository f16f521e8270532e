"""A course as a row of bars, or as lines for a page to draw in its own colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autopilot.console.words import sparkline
from autopilot.report.model import Course, CoursePoint

WIDTH, HEIGHT = 720.0, 180.0
_WIDE = 60
_LOG_FROM = 30.0
"""Highest over lowest value from which a course is drawn by its logarithm."""


@dataclass(frozen=True)
class Drawing:
    """A course in units of a picture of :data:`WIDTH` by :data:`HEIGHT`.

    Attributes:
        lines: Where values are finite without a gap; each is a series of x and y.
        breaks: Places where they are not.
        marks: Places and labels of interventions.
    """

    lines: tuple[tuple[tuple[float, float], ...], ...]
    breaks: tuple[float, ...]
    marks: tuple[tuple[float, str], ...]
    low: float
    high: float
    logarithmic: bool


def bars(course: Course) -> str:
    """A course as a line of text; × where it was not finite."""
    size = max(1, math.ceil(len(course.points) / _WIDE))
    groups = [course.points[at : at + size] for at in range(0, len(course.points), size)]
    logarithmic = _is_logarithmic(course.points)
    return sparkline([_level(group, logarithmic) for group in groups], _WIDE)


def _level(group: Sequence[CoursePoint], logarithmic: bool) -> float:
    """The highest value: a spike is seen; not a number where any was none."""
    if not all(point.finite for point in group):
        return math.nan
    high = max(point.high for point in group if point.high is not None)
    return math.log(high) if logarithmic else high


def draw(course: Course) -> Drawing:
    """A course as lines."""
    logarithmic = _is_logarithmic(course.points)
    values = _values(course.points)
    low, high = min(values, default=0.0), max(values, default=1.0)
    bottom, top = (math.log(low), math.log(high)) if logarithmic else (low, high)
    across = WIDTH / max(len(course.points) - 1, 1)

    def place(at: int, value: float) -> tuple[float, float]:
        level = math.log(value) if logarithmic else value
        share = (level - bottom) / (top - bottom) if top > bottom else 0.5
        return at * across, HEIGHT * (1.0 - share)

    lines: list[list[tuple[float, float]]] = [[]]
    for at, point in enumerate(course.points):
        if point.low is not None and point.high is not None:
            lines[-1] += dict.fromkeys((place(at, point.low), place(at, point.high)))
        if not point.finite:
            lines.append([])
    return Drawing(
        lines=tuple(tuple(line) for line in lines if line),
        breaks=tuple(at * across for at, point in enumerate(course.points) if not point.finite),
        marks=tuple((mark.point * across, mark.label) for mark in course.marks),
        low=low,
        high=high,
        logarithmic=logarithmic,
    )


def _is_logarithmic(points: Sequence[CoursePoint]) -> bool:
    values = _values(points)
    low, high = min(values, default=0.0), max(values, default=0.0)
    return low > 0 and high / low >= _LOG_FROM


def _values(points: Sequence[CoursePoint]) -> list[float]:
    return [v for point in points for v in (point.low, point.high) if v is not None]
