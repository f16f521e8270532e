"""What every detector shares: state that survives a restart, and the making of a finding."""

from abc import ABC, abstractmethod
from typing import Any

from autopilot.schema import Evidence, Finding, FindingKind, Row, Severity, Tier


class Stateful(ABC):
    """State that is a fixed list of attributes, each JSON-able or itself stateful.

    Subclasses name the attributes in ``_kept`` and set their first values in ``_clear``.
    """

    __slots__ = ()
    _kept: tuple[str, ...] = ()

    @abstractmethod
    def _clear(self) -> None: ...

    def reset(self) -> None:
        """Forget everything learned."""
        self._clear()

    def state_dict(self) -> dict[str, Any]:
        """Everything that ``load_state_dict`` needs to go on, as JSON-able values."""
        state: dict[str, Any] = {}
        for name in self._kept:
            value = getattr(self, name)
            if isinstance(value, Stateful):
                state[name] = value.state_dict()
            else:
                state[name] = list(value) if isinstance(value, list) else value
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        for name in self._kept:
            current = getattr(self, name)
            if isinstance(current, Stateful):
                current.load_state_dict(state[name])
            else:
                value = state[name]
                setattr(self, name, list(value) if isinstance(value, list) else value)


class BaseDetector(Stateful):
    """A detector: reads rows in order, reports one finding per sickness.

    ``metrics`` are the metrics that wake it: a row with none of them never reaches it.
    """

    __slots__ = ()
    name: str = ""
    metrics: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._clear()

    @abstractmethod
    def update(self, row: Row) -> Finding | None:
        """Read the next row; the finding, if this row calls for one."""

    def _finding(
        self,
        row: Row,
        kind: FindingKind,
        tier: Tier,
        severity: Severity,
        *,
        metric: str,
        score: float,
        message: str,
        evidence: tuple[Evidence, ...] = (),
        source: str | None = None,
    ) -> Finding:
        return Finding(
            kind=kind,
            tier=tier,
            severity=severity,
            metric=metric,
            step=row.step,
            branch=row.branch,
            score=score,
            message=message,
            evidence=evidence or _present(row, metric),
            detector=self.name,
            source=source,
        )


def _present(row: Row, *metrics: str) -> tuple[Evidence, ...]:
    values = row.values
    return tuple(
        Evidence(metric=metric, step=row.step, value=values[metric])
        for metric in metrics
        if metric in values
    )


def evidence_of(row: Row, *metrics: str) -> tuple[Evidence, ...]:
    """The named metrics of the row, those that it has, as evidence."""
    return _present(row, *metrics)
