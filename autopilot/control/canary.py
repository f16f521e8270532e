"""Canaries: the success test of an applied intervention, and leases that must be confirmed."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from autopilot.schema import Canary, CanaryResult, Row

_BEFORE = 50
"""Rows of the metric before the intervention that a bound is fixed from."""

_LEAST_SPREAD = 0.02
"""Smallest deviation taken for the bound, relative to the level: a calm metric has room too."""


def fix_bound(canary: Canary, rows: Iterable[Row]) -> Canary:
    """Give a canary without a bound one: the metric's recent level plus three robust deviations.

    Args:
        canary: The test; one that brings its own bound is returned as it is.
        rows: Rows from before the intervention, in order.
    """
    if canary.bound is not None:
        return canary
    seen = [row.values[canary.metric] for row in rows if canary.metric in row.values]
    finite = [value for value in seen[-_BEFORE:] if math.isfinite(value)]
    if not finite:
        return canary
    level = median(finite)
    spread = 1.4826 * median(abs(value - level) for value in finite)
    return canary.model_copy(update={"bound": level + 3 * max(spread, _LEAST_SPREAD * abs(level))})


@dataclass
class Watch:
    """One applied proposal under its canary, or under a lease that nobody has confirmed yet."""

    proposal: str
    episode: str | None
    canary: Canary | None
    lease_steps: int | None
    executed_at: int
    confirmed: bool = False
    _values: deque[float] = field(default_factory=deque)
    _non_finite: int = 0

    def __post_init__(self) -> None:
        if self.canary is not None:
            self._values = deque(maxlen=max(1, self.canary.steps // 5))

    def update(self, row: Row, executed: int) -> CanaryResult | None:
        """Read one row after the intervention; returns the result once it is decided."""
        canary, age = self.canary, executed - self.executed_at
        if canary is None:
            return None
        value = row.values.get(canary.metric)
        if value is not None:
            if math.isfinite(value):
                self._non_finite = 0
                self._values.append(value)
            else:
                self._non_finite += 1
                if self._non_finite >= 2:
                    return self._result(row.step, value, "reverted", "the metric is not finite")
        if age < canary.steps:
            return None
        if not self._values:
            return self._result(row.step, math.nan, "void", "the metric was never seen")
        level = median(self._values)
        if canary.bound is not None and level > canary.bound:
            return self._result(row.step, level, "reverted", "worse than the bound fixed before")
        return self._result(row.step, level, "kept", "within the bound fixed before")

    def lease_over(self, executed: int) -> bool:
        """Nobody confirmed it in time."""
        lease = self.lease_steps
        return lease is not None and not self.confirmed and executed - self.executed_at >= lease

    def superseded(self, step: int, by: str) -> CanaryResult | None:
        """Close the canary because another intervention changed the run meanwhile."""
        if self.canary is None:
            return None
        value = median(self._values) if self._values else math.nan
        return self._result(step, value, "void", f"superseded by {by}")

    def _result(self, step: int, value: float, result: str, reason: str) -> CanaryResult:
        canary = self.canary
        assert canary is not None
        return CanaryResult.model_validate(
            {
                "metric": canary.metric,
                "bound": math.inf if canary.bound is None else canary.bound,
                "value": value,
                "step": step,
                "result": result,
                "reason": reason,
            }
        )
