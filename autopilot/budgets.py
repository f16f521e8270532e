"""Budgets: what is used of each, and when or how much would be allowed again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Ledger:
    """One budget, as a proposal finds it.

    Attributes:
        name: Its key under ``[budget]`` in the policy.
        unit: What a use is over in.
        uses: Each as how much it used, and in how many steps or seconds it stops counting.
        asked: What the proposal would use.
        limit: What may be used at a time.
    """

    name: str
    unit: Literal["steps", "seconds"]
    uses: Sequence[tuple[int, float]]
    asked: int
    limit: int

    @property
    def used(self) -> int:
        """What still counts."""
        return sum(amount for amount, _ in self.uses)

    @property
    def overdrawn(self) -> int:
        """By how much the proposal would exceed it; 0 where it asks for nothing of it."""
        return max(0, self.used + self.asked - self.limit) if self.asked else 0

    def reason(self) -> str:
        """Why not, and what would be allowed: less of it now, the same later, or neither."""
        parts = [f"{self.used} of {self.limit} are used and this asks for {self.asked}"]
        left = self.limit - self.used
        if left > 0:
            parts.append(f"allowed: at most {left}")
        wait = self._wait()
        if wait is not None:
            parts.append(f"allowed again in {wait}")
        elif left <= 0:
            parts.append("allowed: none, a person must act")
        return "; ".join(parts)

    def _wait(self) -> str | None:
        """How long until enough uses are over; None where that is never enough."""
        over = self.overdrawn
        for amount, end in sorted(self.uses, key=lambda use: use[1]):
            over -= amount
            if over <= 0:
                return f"{math.ceil(end)} steps" if self.unit == "steps" else _duration(end)
        return None


def _duration(seconds: float) -> str:
    """In whole minutes, and never a moment too short."""
    minutes = math.floor(seconds / 60) + 1
    return f"{minutes // 60} h {minutes % 60} min"
