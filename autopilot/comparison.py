"""Two branches of a run held against each other, over the steps after they part."""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import median

from autopilot.errors import BadInput
from autopilot.journal.ancestry import Branch, segments
from autopilot.schema import Number, Record, Row, metrics

_NO_MEASURE = frozenset({metrics.BATCH_DIGEST})
_FIRST = (metrics.LOSS, metrics.VAL_LOSS, metrics.ACCURACY, metrics.GRAD_NORM, metrics.LR)


class Course(Record):
    """What one metric did on one branch.

    Attributes:
        count: Finite values; minimum, maximum and median are over these, None without any.
        non_finite: Values left out of them.
        last: The latest value, finite or not; None where there is none.
    """

    count: int
    non_finite: int
    last: Number | None
    minimum: Number | None
    maximum: Number | None
    median: Number | None


class Comparison(Record):
    """Two branches over the steps that both have made since they parted.

    Attributes:
        fork_step: The last step that belongs to both.
        until: The last step compared, in both.
        last_steps: How far each has come.
        metrics: For each metric what it did on each branch.
    """

    fork_step: int
    until: int
    last_steps: dict[str, int]
    metrics: dict[str, dict[str, Course]]


def fork_of(branches: Mapping[str, Branch], one: str, other: str) -> int:
    """The last step that belongs to the histories of both branches; 0 where none does.

    >>> known = {"main": Branch(1, "main", None, None), "a": Branch(2, "a", "main", 9),
    ...          "b": Branch(3, "b", "a", 20), "c": Branch(4, "c", "main", 4)}
    >>> fork_of(known, "b", "main"), fork_of(known, "b", "c"), fork_of(known, "a", "b")
    (9, 4, 20)

    Raises:
        NotFound: There is no such branch.
        BadInput: It is one and the same.
    """
    if one == other:
        raise BadInput(f"{one} and {other} are one branch; name two")
    found = [{s.branch.name: s.until for s in segments(branches, name)} for name in (one, other)]
    ends = [
        min(math.inf if end is None else end for end in (found[0][name], found[1][name]))
        for name in found[0].keys() & found[1].keys()
    ]
    return int(max(ends, default=0))


def compare(
    rows: Mapping[str, Sequence[Row]], fork_step: int, only: Collection[str] = ()
) -> Comparison:
    """Hold the rows of two branches against each other.

    Only steps that both have made count: a branch that came further is not better for it.

    Args:
        rows: Of each branch, in order of step; those up to the fork are left out.
        fork_step: The last step that belongs to both.
        only: Metrics wanted; all where none is named.

    Raises:
        BadInput: One of them has made no step since, or a metric is in neither.
    """
    own = {name: [row for row in found if row.step > fork_step] for name, found in rows.items()}
    for name, found in own.items():
        if not found:
            raise BadInput(f"nothing to compare: {name} has no step after {fork_step}")
    last_steps = {name: found[-1].step for name, found in own.items()}
    until = min(last_steps.values())
    seen = {metric for found in own.values() for row in found for metric in row.values}
    unknown = [metric for metric in only if metric not in seen]
    if unknown:
        known = ", ".join(_ordered(seen))
        raise BadInput(f"no metric {unknown[0]!r} on these branches; there are {known}")
    return Comparison(
        fork_step=fork_step,
        until=until,
        last_steps=last_steps,
        metrics={
            metric: {name: _course(found, metric, until) for name, found in own.items()}
            for metric in only or _ordered(seen - _NO_MEASURE)
        },
    )


def _ordered(names: Collection[str]) -> list[str]:
    return [name for name in _FIRST if name in names] + sorted(set(names) - set(_FIRST))


def _course(rows: Sequence[Row], metric: str, until: int) -> Course:
    values = [r.values[metric] for r in rows if r.step <= until and metric in r.values]
    finite = [value for value in values if math.isfinite(value)]
    return Course(
        count=len(finite),
        non_finite=len(values) - len(finite),
        last=values[-1] if values else None,
        minimum=min(finite, default=None),
        maximum=max(finite, default=None),
        median=median(finite) if finite else None,
    )
