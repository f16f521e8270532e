"""What an importer gives: the records of a file in their order, before anything is made of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

Fields = Mapping[str, object]
"""A record as the file has it, under its own names: numbers, or text that may be one."""


class Entry(NamedTuple):
    """One record of a file.

    ``step`` and ``time`` stand apart where the format has a place of their own for them. Elsewhere
    they are None and found among the fields.
    """

    fields: Fields
    step: object = None
    time: object = None


class Tally:
    """Counts what had to be repaired or left out, by kind, with the first place of each."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, what: str, where: str, count: int = 1) -> None:
        seen, first = self._found.get(what, (0, where))
        self._found[what] = seen + count, first

    def __contains__(self, what: str) -> bool:
        return what in self._found

    def lines(self) -> list[str]:
        """One line a kind.

        >>> tally = Tally()
        >>> tally.add("blank steps: left out", "line 7"); tally.add("blank steps: left out", "9")
        >>> tally.lines()
        ['blank steps: left out (2, first line 7)']
        """
        return [f"{what} ({count:,}, first {at})" for what, (count, at) in self._found.items()]


@dataclass(frozen=True)
class Source:
    """A recording that another program wrote.

    Attributes:
        format: Its name in :data:`~autopilot_evals.importers.FORMATS`.
        files: Every file that is read.
        entries: Begins a new pass over the records. It reads lazily unless the format is one
            document, and counts in the tally what it cannot read.
        sets_step: Whether the format itself says which step a record is of.
        steps: Steps the run was to take, where the file says so.
        own: Columns that keep their own name whatever the table of names says.
        remarks: What there is to say about the file as a whole.
    """

    format: str
    files: tuple[Path, ...]
    entries: Callable[[Tally], Iterator[Entry]]
    sets_step: bool = False
    steps: int | None = None
    own: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = field(default=())
