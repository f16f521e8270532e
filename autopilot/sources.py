"""Which data a run is on, and whether a sickness is that of one source alone.

The same weights read every source. Where the loss of one is up and that of the others is on its
course, it is not the weights that are hurt.
"""

from collections import deque
from dataclasses import dataclass, field

ABSENT_ROWS = 100
"""Rows after which a source that comes back counts as new again."""
_KNOWN = 1024
_WINDOW = 40
_LEAST_RAISED = 3
_LEAST_CALM = 6
_MOSTLY = 0.8
_HARDLY = 0.1


class SourceLog:
    """The sources of a run's rows, and where the newest of them began."""

    def __init__(self) -> None:
        self._last_row: dict[str, int] = {}
        self._rows = 0
        self._began: tuple[str, int] | None = None

    def observe(self, source: str, step: int, at: int) -> None:
        """Read the source of a row.

        Args:
            source: It.
            step: The row's.
            at: Rows read before it, of any source or none.
        """
        self._rows += 1
        seen = self._last_row.get(source)
        if self._rows > 1 and (seen is None or at - seen > ABSENT_ROWS):
            self._began = (source, step)
        self._last_row[source] = at
        if len(self._last_row) > _KNOWN:
            del self._last_row[min(self._last_row, key=self._last_row.__getitem__)]

    def began_near(self, step: int, within: int) -> str | None:
        """The source that began last, if it did so no more than so many steps from that one."""
        if self._began is None or abs(self._began[1] - step) > within:
            return None
        return self._began[0]


@dataclass(slots=True)
class Raised:
    """Of which sources the last forty losses were raised, and of which not."""

    _rows: deque[tuple[str, bool]] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def add(self, source: str, raised: bool) -> None:
        """Count a row."""
        self._rows.append((source, raised))

    def lone(self) -> str | None:
        """The source that alone is raised, while others are seen to be on their course.

        >>> seen = Raised()
        >>> for step in range(16):
        ...     seen.add(f"shard-{step % 4}", step % 4 == 2)
        >>> seen.lone()
        'shard-2'
        >>> seen.add("shard-0", True), seen.add("shard-1", True), seen.lone()
        (None, None, None)
        """
        up = [source for source, raised in self._rows if raised]
        if len(up) < _LEAST_RAISED:
            return None
        suspect = max(set(up), key=lambda source: (up.count(source), source))
        own = [raised for source, raised in self._rows if source == suspect]
        calm = sum(not raised for source, raised in self._rows if source != suspect)
        alone = (
            sum(own) >= max(_LEAST_RAISED, _MOSTLY * len(own))
            and calm >= _LEAST_CALM
            and not self.beyond(suspect)
        )
        return suspect if alone else None

    def beyond(self, source: str) -> bool:
        """More than hardly any loss of the other sources is raised too."""
        others = [raised for name, raised in self._rows if name != source]
        return sum(others) > _HARDLY * len(others)
