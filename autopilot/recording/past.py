"""The journal of a replay: events in memory, rows only as far back as anybody looks."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from autopilot.journal import Journal
from autopilot.journal.ancestry import segments
from autopilot.schema import Row

Source = Callable[[], Iterator[Row]]


class PastJournal(Journal):
    """A journal in memory that keeps only the newest rows: the recording holds them all already.

    Whoever asks for more gets it from a new pass over the recording, never beyond the last row
    that was taken in. So its memory does not grow with the recording, and no answer depends on
    how much of it is kept. Rows come in the order in which they were recorded.

    Attributes:
        count: Rows taken in.
    """

    def begin(self, source: Source, recent: deque[Row]) -> None:
        """Name the recording, and where its newest rows that were taken in are kept."""
        self._source = source
        self._recent = recent
        self.count = 0

    def append_rows(self, rows: Sequence[Row]) -> None:
        """Nothing: the recording holds them already."""

    def rows(
        self,
        branch: str,
        *,
        last: int | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
    ) -> list[Row]:
        """Rows of a branch and of its ancestors up to each fork, in the order recorded."""
        inside = self._history(branch, from_step, to_step)
        found = [row for row in self._recent if inside(row)]
        if not self._complete and (last is None or len(found) < last):
            found = list(deque(filter(inside, self._all()), maxlen=last))
        return found if last is None else found[max(len(found) - last, 0) :]

    def value_at(self, branch: str, metric: str, step: int) -> float | None:
        """What was recorded of a metric at a step of the branch's history, if anything."""
        inside = self._history(branch, step, step)
        found = _last_value(self._recent, inside, metric)
        if found is None and not self._complete:
            found = _last_value(self._all(), inside, metric)
        return found

    @property
    def _complete(self) -> bool:
        return self.count <= len(self._recent)

    def _all(self) -> Iterator[Row]:
        return islice(self._source(), self.count)

    def _history(
        self, branch: str, from_step: int | None, to_step: int | None
    ) -> Callable[[Row], bool]:
        """Whether a row lies on a branch's history and between two steps."""
        known = {found.name: found for found in self.branches()}
        spans = {
            s.branch.name: (
                float("-inf") if s.after is None else s.after,
                float("inf") if s.until is None else s.until,
            )
            for s in (s.narrowed(from_step, to_step) for s in segments(known, branch))
        }

        def inside(row: Row) -> bool:
            span = spans.get(row.branch)
            return span is not None and span[0] < row.step <= span[1]

        return inside


def _last_value(rows: Iterable[Row], inside: Callable[[Row], bool], metric: str) -> float | None:
    found = None
    for row in rows:
        if metric in row.values and inside(row):
            found = row.values[metric]
    return found
