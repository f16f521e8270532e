"""Blocks of rows: the hash that binds them and the summaries that make long curves quick."""

import hashlib
import math
from typing import Any, Final, NamedTuple

from autopilot.journal.encoding import number_word
from autopilot.journal.pages import Page, StoredPage

BLOCK_ROWS: Final = 5_000
"""Rows bound by one ``rows_sealed`` event, and by one coarse summary."""
CHUNK_ROWS: Final = 100
"""Rows at least in one fine summary, unless its branch or its block ends; it is of whole pages."""

SummaryRow = tuple[Any, ...]
"""A line of the table ``summaries``."""


class Extremes:
    """Lowest, highest and first non-finite value of one metric over some rows."""

    __slots__ = ("bad", "bad_step", "count", "high", "high_step", "low", "low_step")

    def __init__(self) -> None:
        self.count = 0
        self.low = math.inf
        self.high = -math.inf
        self.low_step: int | None = None
        self.high_step: int | None = None
        self.bad_step: int | None = None
        self.bad = math.nan

    def add(self, step: int, value: float) -> None:
        self.count += 1
        if math.isfinite(value):
            if value < self.low or self.low_step is None:
                self.low, self.low_step = value, step
            if value > self.high or self.high_step is None:
                self.high, self.high_step = value, step
        elif self.bad_step is None:
            self.bad, self.bad_step = value, step

    def merge(self, other: "Extremes") -> None:
        """Takes in those of other rows; of equal extremes the one of the lower step stays."""
        self.count += other.count
        if other.low_step is not None and (
            self.low_step is None or (other.low, other.low_step) < (self.low, self.low_step)
        ):
            self.low, self.low_step = other.low, other.low_step
        if other.high_step is not None and (
            self.high_step is None or (-other.high, other.high_step) < (-self.high, self.high_step)
        ):
            self.high, self.high_step = other.high, other.high_step
        if self.bad_step is None and other.bad_step is not None:
            self.bad, self.bad_step = other.bad, other.bad_step

    def points(self) -> list[tuple[int, float]]:
        """What a curve must show of these rows, in order of step."""
        points = set()
        if self.low_step is not None and self.high_step is not None:
            points = {(self.low_step, self.low), (self.high_step, self.high)}
        ordered = sorted(points)
        if self.bad_step is not None:
            ordered.append((self.bad_step, self.bad))
            ordered.sort(key=lambda point: point[0])
        return ordered


def extremes_of(page: Page) -> dict[str, Extremes]:
    """The extremes of every metric over the rows of a page.

    >>> from autopilot.journal.pages import page_of
    >>> from autopilot.schema import Row
    >>> rows = [Row(1, {"loss": 2.0}), Row(2, {"loss": 1.0}), Row(3, {"loss": math.nan, "lr": 0.1})]
    >>> {name: e.points() for name, e in extremes_of(page_of(rows)).items()}
    {'loss': [(1, 2.0), (2, 1.0), (3, nan)], 'lr': [(3, 0.1)]}
    """
    found: dict[str, Extremes] = {}
    columns = {names: shape.values.tolist() for names, shape in page.shapes.items()}
    # A sum is finite only if all its terms are; it may also overflow, which costs but time.
    if not all(math.isfinite(sum(values)) for values in columns.values()):
        for row in page.rows(""):
            for name, value in row.values.items():
                found.setdefault(name, Extremes()).add(row.step, value)
        return found
    steps = page.steps
    for names, values in columns.items():
        positions, width = page.shapes[names].positions, len(names)
        for place, name in enumerate(names):
            column = values[place::width]
            part = Extremes()
            part.count = len(column)
            part.low, part.high = min(column), max(column)
            part.low_step = steps[positions[column.index(part.low)]]
            part.high_step = steps[positions[column.index(part.high)]]
            if name in found:
                found[name].merge(part)
            else:
                found[name] = part
    return found


class Span(NamedTuple):
    """Consecutive rows of one branch and the extremes of their metrics."""

    branch: int
    first_row: int
    last_row: int
    first_step: int
    last_step: int
    metrics: dict[str, Extremes]

    def lines(self, level: int) -> list[SummaryRow]:
        steps = (self.first_row, self.last_row, self.first_step, self.last_step)
        return [
            (
                *(level, self.branch, name, *steps, e.count),
                *(e.low_step, e.low if e.low_step is not None else None),
                *(e.high_step, e.high if e.high_step is not None else None),
                *(e.bad_step, str(number_word(e.bad)) if e.bad_step is not None else None),
            )
            for name, e in self.metrics.items()
        ]


def _joined(spans: list[Span]) -> Span:
    """One span over neighbours."""
    metrics: dict[str, Extremes] = {}
    for span in spans:
        for name, extremes in span.metrics.items():
            metrics.setdefault(name, Extremes()).merge(extremes)
    return Span(
        spans[0].branch,
        spans[0].first_row,
        spans[-1].last_row,
        min(span.first_step for span in spans),
        max(span.last_step for span in spans),
        metrics,
    )


class Block:
    """The pages since the last seal. Its size does not grow with them beyond their summaries."""

    def __init__(self, first_row: int) -> None:
        self.first_row = first_row
        self.last_row = first_row - 1
        self._hash = hashlib.sha256()
        self._spans: list[Span] = []
        self._chunk: Page | None = None
        self._branch = 0

    def __len__(self) -> int:
        return self.last_row - self.first_row + 1

    def add(self, stored: StoredPage, page: Page) -> None:
        """Takes in the next page; its rows are the block's from now on."""
        if stored.branch_id != self._branch:
            self._end_chunk()
        self._hash.update(stored.bound())
        self._hash.update(stored.cells)
        self.last_row, self._branch = stored.last_row, stored.branch_id
        if self._chunk is None:
            self._chunk = page
        else:
            self._chunk.extend(page)
        if len(self._chunk) >= CHUNK_ROWS:
            self._end_chunk()

    def seal(self) -> dict[str, Any]:
        """The body of the event that binds these rows."""
        return {"first": self.first_row, "last": self.last_row, "sha256": self._hash.hexdigest()}

    def summaries(self) -> list[SummaryRow]:
        """The summaries of a block to which nothing is added any more."""
        self._end_chunk()
        by_branch: list[list[Span]] = []
        for span in self._spans:
            if not by_branch or by_branch[-1][-1].branch != span.branch:
                by_branch.append([])
            by_branch[-1].append(span)
        fine = [line for span in self._spans for line in span.lines(1)]
        return fine + [line for spans in by_branch for line in _joined(spans).lines(2)]

    def _end_chunk(self) -> None:
        chunk = self._chunk
        if chunk is None:
            return
        first_row = self.last_row - len(chunk) + 1
        steps = (min(chunk.steps), max(chunk.steps))
        metrics = extremes_of(chunk)
        self._spans.append(Span(self._branch, first_row, self.last_row, *steps, metrics))
        self._chunk = None
