"""How much one role may ask of the training process: requests a second, and clients that wait."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator

from autopilot_trainer.auth import RANKS, Role

REQUESTS = (1000.0, 100.0)
"""Of any kind: how many at once, and how many a second in the long run."""
CHANGES = (600.0, 20.0)
"""Those that are journaled; each 16 KiB of body counts as one more."""
WAITING = 64
"""Event streams and long polls at a time."""

_BODY_SHARE = 16 * 1024


class Bucket:
    """A token bucket: full at first, refilled at a steady rate.

    Args:
        size: What may be taken at once.
        per_second: What comes back.
        now: Seconds on a clock that never goes back.
    """

    def __init__(self, size: float, per_second: float, now: float) -> None:
        self._size, self._per_second = size, per_second
        self._level, self._at = size, now

    def take(self, cost: float, now: float) -> float:
        """Takes that much and returns 0.0, or takes nothing and returns the seconds to wait.

        >>> bucket = Bucket(size=2, per_second=1, now=0.0)
        >>> bucket.take(2, now=0.0), bucket.take(1, now=0.5), bucket.take(1, now=1.0)
        (0.0, 0.5, 0.0)
        """
        self._level = min(self._size, self._level + (now - self._at) * self._per_second)
        self._at = now
        cost = min(cost, self._size)
        if cost > self._level:
            return (cost - self._level) / self._per_second
        self._level -= cost
        return 0.0


class Rates:
    """What each role has left; those without a token share one more bucket.

    A role's clients cannot use up another's: whatever agents and viewers do, an operator is heard.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        now = clock()
        self._clock = clock
        self._requests = {who: Bucket(*REQUESTS, now) for who in (*RANKS, None)}
        self._changes = {role: Bucket(*CHANGES, now) for role in RANKS}
        self._waiting: Counter[Role] = Counter()

    def ask(self, who: Role | None) -> int:
        """Counts a request; the whole seconds to wait where it is one too many, otherwise 0."""
        return math.ceil(self._requests[who].take(1.0, self._clock()))

    def change(self, role: Role, size: int) -> int:
        """Counts a request with a body of so many bytes that may be journaled; like :meth:`ask`."""
        return math.ceil(self._changes[role].take(1.0 + size // _BODY_SHARE, self._clock()))

    @contextlib.contextmanager
    def seat(self, role: Role) -> Iterator[bool]:
        """A place among those that wait for events; False where all are taken."""
        free = self._waiting[role] < WAITING
        if not free:
            yield False
            return
        self._waiting[role] += 1
        try:
            yield True
        finally:
            self._waiting[role] -= 1
