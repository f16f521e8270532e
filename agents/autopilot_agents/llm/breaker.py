"""When to stop asking a model for a while. Pure: the time is passed in."""

from dataclasses import dataclass, replace
from typing import Final

from autopilot.schema import NoProposalKind

TRANSIENT_IN_A_ROW: Final = 3
COOL_DOWN: Final = 300.0
"""Seconds; then one question is let through, and its answer decides."""


@dataclass(frozen=True)
class Breaker:
    """Opens after faults of the server, so that rules go on without waiting for it.

    Three transient or protocol faults in a row open it, or one fatal fault. Answers that are wrong,
    refused or empty-handed show that the server works; they close it.

    Attributes:
        failures: Transient and protocol faults since the last answer.
        opened_at: When it opened, on the caller's clock in seconds; None while closed.
        cause: What opened it.
        why: The same in words.
    """

    failures: int = 0
    opened_at: float | None = None
    cause: NoProposalKind | None = None
    why: str = ""

    def lets_through(self, now: float) -> bool:
        """Whether a question may be asked: closed, or cooled down (half-open).

        >>> fallen = Breaker().after("fatal", "no such model", now=10.0)
        >>> fallen.lets_through(11.0), fallen.lets_through(10.0 + COOL_DOWN)
        (False, True)
        """
        return self.opened_at is None or now - self.opened_at >= COOL_DOWN

    def after(self, kind: NoProposalKind | None, why: str, *, now: float) -> "Breaker":
        """The breaker after an answer; ``kind`` is None where it was a proposal."""
        if kind not in ("transient", "protocol", "fatal"):
            return Breaker()
        failures = self.failures + 1
        opens = kind == "fatal" or failures >= TRANSIENT_IN_A_ROW or self.opened_at is not None
        counted = replace(self, failures=failures)
        return replace(counted, opened_at=now, cause=kind, why=why) if opens else counted
