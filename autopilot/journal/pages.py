"""Pages: consecutive rows of one branch, as arrays for the processor and as bytes for the file.

A page's bytes, all numbers little-endian:

====================  ===============================================================
4 bytes               length of the head, unsigned
the head              UTF-8 JSON: ``[rows, sources, [[names, count], ...]]``
8 bytes a row         steps, signed
8 bytes a row         times, IEEE 754 doubles
2 bytes a row         only if there are sources: 0 for none, n for the n-th of them
for each shape:
  2 bytes a row       only if there are several shapes: where in the page its rows are
  8 bytes a value     doubles, row after row, in the order of the shape's names
====================  ===============================================================

A shape is the names of the metrics that some of the rows report, in the order reported; ``count``
is how many rows have it. Rows of a run take turns between a few shapes, so a value costs its eight
bytes and its name next to nothing, and a metric's column is a slice.
"""

import json
import math
import struct
import sys
from array import array
from collections.abc import Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Final, NamedTuple, Self

from autopilot.journal.ancestry import Segment
from autopilot.journal.encoding import canonical, encodable
from autopilot.schema import Row

PAGE_ROWS: Final = 256
"""The most rows in one page."""

Names = tuple[str, ...]


class Shape(NamedTuple):
    """The rows of a page that report the same metrics.

    Attributes:
        positions: Where in the page they are, ascending.
        values: Their values, row after row.
    """

    positions: "array[int]"
    values: "array[float]"


class Page:
    """Consecutive rows of one branch, column by column.

    >>> page = page_of([Row(7, {"loss": 2}), Row(8, {"loss": 1.5, "lr": 0.1}, source="a")])
    >>> decode(encode(page)).rows("main") == page.rows("main")
    True
    >>> page.rows("b1")[1]
    Row(step=8, values={'loss': 1.5, 'lr': 0.1}, branch='b1', time=0.0, source='a')
    >>> page.column("loss"), page.column("lr")
    ([(7, 2.0), (8, 1.5)], [(8, 0.1)])
    """

    __slots__ = ("shapes", "sources", "steps", "times")

    def __init__(
        self,
        steps: "array[int]",
        times: "array[float]",
        sources: list[str | None],
        shapes: dict[Names, Shape],
    ) -> None:
        self.steps = steps
        self.times = times
        self.sources = sources
        self.shapes = shapes

    def __len__(self) -> int:
        return len(self.steps)

    def extend(self, other: "Page") -> None:
        """Adds the rows of another page after its own."""
        before = len(self)
        self.steps += other.steps
        self.times += other.times
        self.sources += other.sources
        for names, (positions, values) in other.shapes.items():
            own = self.shapes.setdefault(names, Shape(array("H"), array("d")))
            own.positions.extend([before + position for position in positions])
            own.values.extend(values)

    def rows(self, branch: str) -> list[Row]:
        """The rows in order."""
        values: list[dict[str, float]] = [{}] * len(self)
        for names, shape in self.shapes.items():
            for position, reported in zip(shape.positions, _by_row(names, shape), strict=True):
                values[position] = dict(zip(names, reported, strict=True))
        columns = zip(self.steps, values, repeat(branch), self.times, self.sources, strict=False)
        return list(map(Row._make, columns))

    def column(self, metric: str) -> list[tuple[int, float]]:
        """Step and value of every row that reports the metric, in order of the rows."""
        found: list[tuple[int, float]] = []
        for names, (positions, values) in self.shapes.items():
            if metric in names:
                reported = values[names.index(metric) :: len(names)]
                found.extend(zip(positions, reported, strict=True))
        found.sort(key=itemgetter(0))
        return [(self.steps[position], value) for position, value in found]


class StoredPage(NamedTuple):
    """A page as it lies in the file: a line of the table ``pages`` with its branch's name."""

    first_row: int
    last_row: int
    branch_id: int
    branch: str
    first_step: int
    last_step: int
    cells: bytes

    @classmethod
    def of(cls, page: Page, first_row: int, branch_id: int, branch: str) -> Self:
        last_row = first_row + len(page) - 1
        steps = min(page.steps), max(page.steps)
        return cls(first_row, last_row, branch_id, branch, *steps, encode(page))

    @property
    def rows(self) -> int:
        """How many."""
        return self.last_row - self.first_row + 1

    def inside(self, segment: Segment) -> bool:
        return segment.holds(self.first_step) and segment.holds(self.last_step)

    def bound(self) -> bytes:
        """What goes into the hash of its block before its bytes."""
        numbers = (self.first_row, self.last_row, self.first_step, self.last_step, len(self.cells))
        return f"{canonical((*numbers, self.branch))}\n".encode()

    def page(self) -> Page:
        """Its rows; raises ValueError where the bytes are not those of so many rows."""
        page = decode(self.cells)
        if len(page) != self.rows:
            raise ValueError(f"{len(page)} rows instead of {self.rows}")
        return page


def page_of(rows: Sequence[Row]) -> Page:
    """The rows, at least one, as a page. Raises TypeError, ValueError or OverflowError.

    >>> page_of([Row(1, {"loss": "high"})])
    Traceback (most recent call last):
    TypeError: must be real number, not str
    """
    steps, reported, _, times, sources = zip(*rows, strict=True)
    if not all(map(math.isfinite, times)):
        raise ValueError("its time is not finite")
    gathered: dict[Names, tuple[list[int], list[float]]] = {}
    for position, row in enumerate(reported):
        names = tuple(row)
        if names in gathered:
            positions, values = gathered[names]
        else:
            positions, values = gathered[names] = [], []
        positions.append(position)
        values += row.values()
    if not all(map(_storable, gathered)):
        return page_of([row._replace(values=_renamed(row.values)) for row in rows])
    return Page(
        _whole(steps),
        array("d", times),
        [None if source is None else encodable(source) for source in sources],
        {
            names: Shape(array("H", positions), array("d", values))
            for names, (positions, values) in gathered.items()
        },
    )


def encode(page: Page) -> bytes:
    """The page's bytes, as the module describes them."""
    given = {source: None for source in page.sources if source is not None}
    shapes = [[names, len(shape.positions)] for names, shape in page.shapes.items()]
    head = canonical([len(page), [*given], shapes]).encode()
    parts = [struct.pack("<I", len(head)), head, _bytes(page.steps), _bytes(page.times)]
    if given:
        number = {None: 0} | {source: n for n, source in enumerate(given, 1)}
        parts.append(_bytes(array("H", [number[source] for source in page.sources])))
    for positions, values in page.shapes.values():
        if len(shapes) > 1:
            parts.append(_bytes(positions))
        parts.append(_bytes(values))
    return b"".join(parts)


def decode(cells: bytes) -> Page:
    """The inverse of :func:`encode`; raises ValueError for bytes that it did not make.

    >>> decode(encode(page_of([Row(1, {"loss": 1.0})]))[:-1])
    Traceback (most recent call last):
    ValueError: not the bytes of a page
    """
    try:
        reader = _Columns(cells)
        count, given, shapes = reader.head
        steps, times = reader.take("q", count), reader.take("d", count)
        sources: list[str | None] = [None] * count
        if given:
            named = [None, *given]
            sources = [named[number] for number in reader.take("H", count)]
        found: dict[Names, Shape] = {}
        for names, rows in shapes:
            positions = reader.take("H", rows) if len(shapes) > 1 else array("H", range(rows))
            found[tuple(names)] = Shape(positions, reader.take("d", rows * len(names)))
        places = chain.from_iterable(shape.positions for shape in found.values())
        whole = reader.exhausted and sorted(places) == list(range(count))
    except (ValueError, TypeError, IndexError, OverflowError, struct.error) as error:
        raise ValueError("not the bytes of a page") from error
    if not whole:
        raise ValueError("not the bytes of a page")
    return Page(steps, times, sources, found)


class _Columns:
    """Reads one array after the other from a page's bytes."""

    def __init__(self, cells: bytes) -> None:
        (length,) = struct.unpack_from("<I", cells)
        self._cells = memoryview(cells)
        self._at: int = 4 + length
        self.head = json.loads(bytes(self._cells[4 : self._at]))

    def take(self, kind: str, count: int) -> "array[Any]":
        column: array[Any] = array(kind)
        end = self._at + count * column.itemsize
        column.frombytes(self._cells[self._at : end])
        if len(column) != count:
            raise ValueError
        self._at = end
        if sys.byteorder == "big":
            column.byteswap()
        return column

    @property
    def exhausted(self) -> bool:
        return self._at == len(self._cells)


def _bytes(column: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _by_row(names: Names, shape: Shape) -> "zip[tuple[float, ...]] | list[tuple[float, ...]]":
    if not names:
        return [()] * len(shape.positions)
    return zip(*[iter(shape.values)] * len(names), strict=True)


def _whole(steps: Sequence[int]) -> "array[int]":
    try:
        return array("q", steps)
    except TypeError:  # a float, or another number that knows to become an int
        return array("q", map(int, steps))


def _storable(names: Names) -> bool:
    text = "".join(names)
    return text.isascii() or encodable(text) == text


def _renamed(values: dict[str, float]) -> dict[str, float]:
    return {encodable(name): value for name, value in values.items()}
