"""Which rows make up the history of a branch."""

from collections.abc import Mapping
from typing import NamedTuple

from autopilot.errors import NotFound


class Branch(NamedTuple):
    """A line of the run's history.

    Rows after ``fork_step`` are its own, those up to it its parent's.
    """

    id: int
    name: str
    parent: str | None
    fork_step: int | None


class Segment(NamedTuple):
    """The part of a history that one branch contributes: ``after < step <= until``."""

    branch: Branch
    after: int | None
    until: int | None

    def narrowed(self, from_step: int | None, to_step: int | None) -> "Segment":
        after, until = self.after, self.until
        if from_step is not None and (after is None or from_step - 1 > after):
            after = from_step - 1
        if to_step is not None and (until is None or to_step < until):
            until = to_step
        return Segment(self.branch, after, until)

    def holds(self, step: int) -> bool:
        return (self.after is None or step > self.after) and (
            self.until is None or step <= self.until
        )

    @property
    def empty(self) -> bool:
        return self.after is not None and self.until is not None and self.until <= self.after


def segments(branches: Mapping[str, Branch], name: str) -> list[Segment]:
    """The segments of a branch's history, oldest first; empty ones are left out.

    >>> main, b1 = Branch(1, "main", None, None), Branch(2, "b1", "main", 100)
    >>> b2 = Branch(3, "b2", "b1", 40)
    >>> known = {"main": main, "b1": b1, "b2": b2}
    >>> [(s.branch.name, s.after, s.until) for s in segments(known, "b2")]
    [('main', None, 40), ('b2', 40, None)]
    """
    if name not in branches:
        raise NotFound(f"no branch {name!r}; there are {', '.join(branches)}")
    found: list[Segment] = []
    until: int | None = None
    branch: Branch | None = branches[name]
    while branch is not None:
        segment = Segment(branch, branch.fork_step, until)
        if not segment.empty:
            found.append(segment)
        if branch.fork_step is not None and (until is None or branch.fork_step < until):
            until = branch.fork_step
        branch = None if branch.parent is None else branches[branch.parent]
    return found[::-1]


def overlapping(segment: Segment) -> tuple[str, list[int]]:
    """The SQL condition on lines with a branch and steps for those that reach into a segment."""
    where, values = ["branch = ?"], [segment.branch.id]
    if segment.after is not None:
        where.append("last_step > ?")
        values.append(segment.after)
    if segment.until is not None:
        where.append("first_step <= ?")
        values.append(segment.until)
    return " AND ".join(where), values
