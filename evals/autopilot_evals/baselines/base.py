"""What every rule of others shares: it reads rows, and one sickness is one alarm."""

from collections.abc import Callable, Iterable
from typing import Protocol

from autopilot.schema import Row
from autopilot_evals.scoring.matching import Alarm

QUIET_ROWS = 10
"""A rule that was silent for so many rows raises a new alarm, and not the old one again."""


class Rule(Protocol):
    """A rule of others at its published thresholds."""

    name: str

    def update(self, row: Row) -> bool:
        """Read the next row; whether the rule would act on it."""
        ...


def alarms_of(rule: Rule, rows: Iterable[Row]) -> list[Alarm]:
    """The alarms of a rule over a run: each first row it acts on after ``QUIET_ROWS`` of silence.

    Grouped in its favour: a rule that fires on ten rows of one spike raised one alarm.
    """
    collector = AlarmCollector(rule.update)
    for row in rows:
        collector.read(row)
    return collector.alarms


class AlarmCollector:
    """Gathers a rule's firings into alarms, row by row."""

    def __init__(self, update: Callable[[Row], bool]) -> None:
        self.alarms: list[Alarm] = []
        self._update = update
        self._row = -1
        self._fired = -QUIET_ROWS - 1

    def read(self, row: Row) -> None:
        """Show the rule a row."""
        self._row += 1
        if self._update(row):
            if self._row - self._fired > QUIET_ROWS:
                self.alarms.append(Alarm(self._row, row.step))
            self._fired = self._row
