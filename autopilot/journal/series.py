"""Curves of any length in a bounded number of points, from summaries where there are many rows."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from autopilot.journal.ancestry import Segment, segment_filter
from autopilot.journal.blocks import Extremes
from autopilot.journal.encoding import decode_values, read_number

Query = Callable[[str, Sequence[Any]], list[Any]]
Points = list[tuple[int, float]]

_COLUMNS = (
    "first_row, last_row, first_step, last_step, count,"
    " low_step, low, high_step, high, bad_step, bad"
)
_FINE, _COARSE = 1, 2


def curve(query: Query, history: Sequence[Segment], metric: str, points: int) -> Points:
    """The metric over the history, thinned to at most ``points`` (no fewer than 4)."""
    points = max(points, 4)
    found = [part for segment in history for part in _segment(query, segment, metric, points)]
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


def _segment(query: Query, segment: Segment, metric: str, points: int) -> list[Extremes]:
    fine = _count(query, segment, metric, _FINE)
    coarse = _count(query, segment, metric, _COARSE) >= points
    level = _COARSE if coarse else _FINE
    keep_summaries = coarse or 2 * fine >= points
    where, values = _reach(segment)
    lines = query(
        f"SELECT {_COLUMNS} FROM summaries WHERE level = ? AND branch = ? AND metric = ?{where}"  # noqa: S608
        " ORDER BY first_row",
        (level, segment.branch.id, metric, *values),
    )
    found: list[Extremes] = []
    for line in lines:
        first_row, last_row, first_step, last_step, count = line[:5]
        inside = (segment.after is None or first_step > segment.after) and (
            segment.until is None or last_step <= segment.until
        )
        if inside and (keep_summaries or count <= 2):
            found.append(_read(line))
        else:
            found.extend(_raw(query, segment, metric, first_row, last_row))
    sealed = query("SELECT coalesce(max(last_row), 0) FROM summaries WHERE level = 2", ())[0][0]
    found.extend(_raw(query, segment, metric, sealed + 1, None))
    return found


def _reach(segment: Segment) -> tuple[str, list[int]]:
    where, values = "", []
    if segment.after is not None:
        where += " AND last_step > ?"
        values.append(segment.after)
    if segment.until is not None:
        where += " AND first_step <= ?"
        values.append(segment.until)
    return where, values


def _count(query: Query, segment: Segment, metric: str, level: int) -> int:
    where, values = _reach(segment)
    sql = f"SELECT count(*) FROM summaries WHERE level = ? AND branch = ? AND metric = ?{where}"  # noqa: S608
    return int(query(sql, (level, segment.branch.id, metric, *values))[0][0])


def _read(line: Sequence[Any]) -> Extremes:
    part = Extremes()
    part.count = line[4]
    if line[5] is not None:
        part.low_step, part.low, part.high_step, part.high = line[5:9]
    if line[9] is not None:
        part.bad_step, part.bad = line[9], read_number(line[10])
    return part


def _raw(
    query: Query, segment: Segment, metric: str, first: int, last: int | None
) -> Iterable[Extremes]:
    where, values = segment_filter(segment)
    sql = f"SELECT r.step, r.vals FROM rows r NOT INDEXED WHERE {where} AND r.id >= ?"  # noqa: S608
    values.append(first)
    if last is not None:
        sql += " AND r.id <= ?"
        values.append(last)
    for step, text in query(f"{sql} ORDER BY r.id", values):
        recorded = decode_values(text)
        if metric in recorded:
            part = Extremes()
            part.add(step, recorded[metric])
            yield part
