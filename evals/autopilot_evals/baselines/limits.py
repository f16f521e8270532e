"""Rules against a fixed limit."""

from math import isfinite

from autopilot.schema import Row
from autopilot.schema.metrics import GRAD_NORM, LOSS

FIRST_SAMPLES = 100
TIMES = 10.0


class FirstMaximum:
    """A loss or gradient norm ten times the largest of its first hundred, or no number at all.

    The check for unexpectedly large results of Megatron-LM's rerun state machine (its options
    ``--check-for-spiky-loss`` and ``--check-for-large-grads``).

    >>> rule = FirstMaximum()
    >>> any(rule.update(Row(s, {"loss": 2.0})) for s in range(100))
    False
    >>> rule.update(Row(100, {"loss": 19.0})), rule.update(Row(101, {"loss": 21.0}))
    (False, True)
    """

    name = "first_maximum"

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def update(self, row: Row) -> bool:
        hits = [self._exceeds(name, row) for name in (LOSS, GRAD_NORM) if name in row.values]
        return any(hits)

    def _exceeds(self, name: str, row: Row) -> bool:
        value = abs(row.values[name])
        if not isfinite(value):
            return True
        count, largest = self._seen.get(name, (0, 0.0))
        if count < FIRST_SAMPLES:
            self._seen[name] = (count + 1, max(largest, value))
            return False
        return value >= TIMES * largest


class NotANumber:
    """A loss that is NaN or infinite: what most trainers stop at, and nothing else.

    For instance ``terminate_on_nan`` of Keras and ``detect_anomaly``-like checks elsewhere.

    >>> NotANumber().update(Row(1, {"loss": float("nan")}))
    True
    """

    name = "not_a_number"

    def update(self, row: Row) -> bool:
        return not isfinite(row.values.get(LOSS, 0.0))
