"""What applying an intervention gives: what changed, how to check it, how to undo it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from autopilot.schema import Change, Intervention, ReadBack


@dataclass(frozen=True)
class Check:
    """Reads one value where it takes effect.

    Attributes:
        after_update: Only meaningful once another optimizer update was made.
    """

    field: str
    expected: Callable[[], Any]
    read: Callable[[], Any]
    after_update: bool = False

    def run(self, step: int) -> ReadBack:
        """Read and compare."""
        expected, value = self.expected(), self.read()
        return ReadBack(
            step=step, field=self.field, expected=expected, value=value, ok=_same(expected, value)
        )


@dataclass(frozen=True)
class Applied:
    """One intervention in force.

    Attributes:
        inverse: What undoes it, in the order to apply.
        no_inverse: Why nothing can, where nothing can.
        take_back: Undoes it at once, before another step: where no intervention can, or where
            one would leave more of a trace. Comes before the inverse.
    """

    changes: tuple[Change, ...] = ()
    checks: tuple[Check, ...] = ()
    inverse: tuple[Intervention, ...] = ()
    no_inverse: str | None = None
    results: dict[str, Any] = field(default_factory=dict)
    take_back: Callable[[], None] | None = None


def constant(value: Any) -> Callable[[], Any]:
    """An expectation that does not change with the step."""
    return lambda: value


def _same(expected: Any, value: Any) -> bool:
    if isinstance(expected, float) and isinstance(value, int | float):
        return abs(expected - value) <= 1e-6 * max(abs(expected), abs(value))
    return bool(expected == value)
