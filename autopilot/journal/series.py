"""Curves of any length in a bounded number of points, from summaries where there are many rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from autopilot.journal.ancestry import Segment, overlapping
from autopilot.journal.blocks import Extremes
from autopilot.journal.encoding import read_number
from autopilot.journal.pages import Page

Query = Callable[[str, Sequence[Any]], list[Any]]
Pages = Callable[[Segment, int, int | None], Iterable[Page]]
"""The pages of a segment that lie between two row ids, in order of rows."""
Points = list[tuple[int, float]]

_COLUMNS = (
    "first_row, last_row, first_step, last_step, count,"
    " low_step, low, high_step, high, bad_step, bad"
)
_FINE, _COARSE = 1, 2


def curve(
    query: Query, pages: Pages, history: Sequence[Segment], metric: str, points: int
) -> Points:
    """The metric over the history, thinned to at most ``points`` (no fewer than 4)."""
    points = max(points, 4)
    # Known before anything is read: a block that is sealed meanwhile is read from its pages.
    sealed = query("SELECT coalesce(max(last_row), 0) FROM summaries WHERE level = 2", ())[0][0]
    found: list[Extremes] = []
    for segment in history:
        found.extend(_summarized(query, pages, segment, metric, points, sealed))
        found.extend(_raw(pages, segment, metric, sealed + 1, None))
    return thin(found, points)


def thin(parts: Sequence[Extremes], points: int) -> Points:
    """Merges neighbours into buckets of steps until they fit; keeps what :class:`Extremes` keeps.

    >>> def one(step, value):
    ...     e = Extremes(); e.add(step, value); return e
    >>> thin([one(s, 9.0 if s == 7 else 1.0) for s in range(100)], points=4)
    [(0, 1.0), (7, 9.0), (50, 1.0)]
    """
    whole = [point for part in parts for point in part.points()]
    if len(whole) <= points:
        return whole
    per_bucket = 3 if any(part.bad_step is not None for part in parts) else 2
    count = max(points // per_bucket, 1)
    first, last = _start(parts[0]), _start(parts[-1])
    width = max((last - first + 1) / count, 1e-9)
    buckets: dict[int, Extremes] = {}
    for part in parts:
        place = min(max(int((_start(part) - first) / width), 0), count - 1)
        buckets.setdefault(place, Extremes()).merge(part)
    return [point for place in sorted(buckets) for point in buckets[place].points()]


def _start(part: Extremes) -> int:
    steps = (part.low_step, part.high_step, part.bad_step)
    return min(step for step in steps if step is not None)


def _summarized(
    query: Query, pages: Pages, segment: Segment, metric: str, points: int, sealed: int
) -> Iterator[Extremes]:
    reach, values = overlapping(segment)
    where = f"FROM summaries WHERE level = ? AND metric = ? AND last_row <= ? AND {reach}"

    def count(level: int) -> int:
        return int(query(f"SELECT count(*) {where}", (level, metric, sealed, *values))[0][0])

    coarse = count(_COARSE) >= points
    keep_summaries = coarse or 2 * count(_FINE) >= points
    level = _COARSE if coarse else _FINE
    for line in query(
        f"SELECT {_COLUMNS} {where} ORDER BY first_row", (level, metric, sealed, *values)
    ):
        first_row, last_row, first_step, last_step, rows = line[:5]
        inside = segment.holds(first_step) and segment.holds(last_step)
        if inside and (keep_summaries or rows <= 2):
            yield _read(line)
        else:
            yield from _raw(pages, segment, metric, first_row, last_row)


def _read(line: Sequence[Any]) -> Extremes:
    part = Extremes()
    part.count = line[4]
    if line[5] is not None:
        part.low_step, part.low, part.high_step, part.high = line[5:9]
    if line[9] is not None:
        part.bad_step, part.bad = line[9], read_number(line[10])
    return part


def _raw(
    pages: Pages, segment: Segment, metric: str, first: int, last: int | None
) -> Iterator[Extremes]:
    for page in pages(segment, first, last):
        for step, value in page.column(metric):
            if segment.holds(step):
                part = Extremes()
                part.add(step, value)
                yield part
