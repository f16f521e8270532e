"""Blocks of rows: the hash that binds them and the summaries that make long curves quick."""

import hashlib
import math
from typing import Any, Final

from autopilot.journal.encoding import number_word

BLOCK_ROWS: Final = 5_000
"""Rows bound by one ``rows_sealed`` event, and by one coarse summary."""
CHUNK_ROWS: Final = 100
"""Rows in one fine summary."""

SummaryKey = tuple[int, int, str, int]
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
        self.count += other.count
        if other.low_step is not None and (other.low < self.low or self.low_step is None):
            self.low, self.low_step = other.low, other.low_step
        if other.high_step is not None and (other.high > self.high or self.high_step is None):
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


class Span:
    """Consecutive rows of one branch and the extremes of their metrics."""

    def __init__(self, branch: int, row_id: int, step: int) -> None:
        self.branch = branch
        self.first_row = self.last_row = row_id
        self.first_step = self.last_step = step
        self.metrics: dict[str, Extremes] = {}

    def add(self, row_id: int, step: int, values: dict[str, float]) -> None:
        self.last_row = row_id
        self._reach(step, step)
        for name, value in values.items():
            extremes = self.metrics.get(name)
            if extremes is None:
                extremes = self.metrics[name] = Extremes()
            extremes.add(step, value)

    def merge(self, other: "Span") -> None:
        self.last_row = other.last_row
        self._reach(other.first_step, other.last_step)
        for name, extremes in other.metrics.items():
            self.metrics.setdefault(name, Extremes()).merge(extremes)

    def _reach(self, first: int, last: int) -> None:
        if first < self.first_step:
            self.first_step = first
        if last > self.last_step:
            self.last_step = last

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


class Block:
    """The rows since the last seal. Its size does not grow with them beyond their summaries."""

    def __init__(self, first_row: int) -> None:
        self.first_row = first_row
        self.last_row = first_row - 1
        self._hash = hashlib.sha256()
        self._spans: list[Span] = []
        self._in_span = 0

    def __len__(self) -> int:
        return self.last_row - self.first_row + 1

    def add(
        self, row_id: int, branch: int, step: int, values: dict[str, float], line: bytes
    ) -> None:
        self._hash.update(line)
        self.last_row = row_id
        if not self._spans or self._in_span == CHUNK_ROWS or self._spans[-1].branch != branch:
            self._spans.append(Span(branch, row_id, step))
            self._in_span = 0
        self._spans[-1].add(row_id, step, values)
        self._in_span += 1

    def seal(self) -> dict[str, Any]:
        """The body of the event that binds these rows."""
        return {"first": self.first_row, "last": self.last_row, "sha256": self._hash.hexdigest()}

    def summaries(self) -> list[SummaryRow]:
        coarse: list[Span] = []
        for span in self._spans:
            if not coarse or coarse[-1].branch != span.branch:
                coarse.append(Span(span.branch, span.first_row, span.first_step))
            coarse[-1].merge(span)
        fine = [line for span in self._spans for line in span.lines(1)]
        return fine + [line for span in coarse for line in span.lines(2)]
