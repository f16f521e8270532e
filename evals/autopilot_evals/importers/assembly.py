"""From the records of a file to the rows of a run: branches, merged rows, names, remarks."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from autopilot.errors import BadInput
from autopilot.recording import Fork, RecordedRun
from autopilot.schema import MAIN, Row
from autopilot_evals.importers.cadence import Cadence
from autopilot_evals.importers.course import Course
from autopilot_evals.importers.exported import exported_rows
from autopilot_evals.importers.layout import Layout, lay_out
from autopilot_evals.importers.names import Naming, is_bookkeeping, name_columns
from autopilot_evals.importers.readings import readings
from autopilot_evals.importers.source import Source, Tally

_MOST_LATE: Final = 100_000
_REPEATED: Final = "rows that repeat the one before: left out"
_REPLACED: Final = "rows that give a step a second value: the last one is kept"
_FORKS_TOLD: Final = 5

LateRows = Mapping[str, Mapping[int, Row]]
"""Rows that came late, by branch and step."""


def assemble(
    source: Source,
    name: str,
    *,
    names: Mapping[str, str] | None = None,
    step: str | None = None,
) -> RecordedRun:
    """Make a run of what an importer reads.

    The file is read through once here, to learn its columns and what is out of order, and once
    more by each pass over the rows.

    Raises:
        BadInput: There are no rows, no steps or no numbers, or ``names`` or ``step`` do not fit.
    """
    layout = lay_out(source, step)
    scan = _scan(source, layout)
    if not scan.columns:
        raise BadInput(f"{source.files[0]}: no column but the step's holds numbers")
    own = set(scan.columns) - set(names or {}) if layout.exported else source.own
    naming = name_columns(scan.columns, names, own)
    late = _joined_late(scan.late, scan.tally)

    def rows() -> Iterator[Row]:
        return _named(_pass(source, layout, late), naming)

    told = (*source.remarks, *layout.remarks, *scan.told(), *scan.tally.lines())
    return RecordedRun(
        name=name,
        run_id=_digest(source),
        rows=rows,
        forks=tuple(scan.forks),
        steps=source.steps,
        remarks=told if layout.exported else (*told, *naming.remarks),
    )


@dataclass
class _Scan:
    """What one reading of a whole recording found."""

    columns: dict[str, None] = field(default_factory=dict)
    forks: list[Fork] = field(default_factory=list)
    late: list[Row] = field(default_factory=list)
    lag: int = 0
    tally: Tally = field(default_factory=Tally)
    cadence: Cadence = field(default_factory=Cadence)
    returns: list[str] = field(default_factory=list)

    def told(self) -> list[str]:
        told = [self.cadence.told(), *self.returns[:_FORKS_TOLD]]
        if len(self.returns) > _FORKS_TOLD:
            told.append(f"and went back {len(self.returns) - _FORKS_TOLD} more times, likewise")
        if self.late:
            told.append(
                f"{len(self.late):,} rows were written late, by up to {self.lag:,} steps: put at "
                f"the steps they name"
            )
        return told


def _scan(source: Source, layout: Layout) -> _Scan:
    scan = _Scan()
    ordered = _exported if layout.exported else _ordered
    for row in ordered(source, layout, scan):
        scan.columns.update(dict.fromkeys(row.values))
        scan.cadence.add(row)
    for row in scan.late:
        scan.columns.update(dict.fromkeys(row.values))
    return scan


def _pass(source: Source, layout: Layout, late: LateRows) -> Iterator[Row]:
    if layout.exported:
        return _exported(source, layout, _Scan())
    rows = _ordered(source, layout, _Scan())
    return _with_late(rows, late) if late else rows


def _exported(source: Source, layout: Layout, scan: _Scan) -> Iterator[Row]:
    return exported_rows(source, scan.forks, scan.tally)


def _ordered(source: Source, layout: Layout, scan: _Scan) -> Iterator[Row]:
    """Rows with columns under their own names; what came late goes to the scan instead."""
    course = Course(training=layout.training)
    branch, held = MAIN, None
    for row in readings(source, layout, scan.tally):
        before = course.step
        place = course.place(row.step, row.values)
        if place == "late":
            _keep_late(row, before, branch, scan, source)
            continue
        if place == "same" and held is not None:
            held = _joined(held, row, scan.tally)
            continue
        if place == "back":
            parent, branch = branch, f"resume-{len(scan.forks) + 1}"
            scan.forks.append(Fork(branch, parent, row.step - 1))
            scan.returns.append(
                f"went back from step {before:,} to {row.step:,}: from there on branch {branch}"
            )
        if held is not None:
            yield held
        held = row if branch == MAIN else row._replace(branch=branch)
    if held is not None:
        yield held


def _keep_late(row: Row, newest: int, branch: str, scan: _Scan, source: Source) -> None:
    if len(scan.late) == _MOST_LATE:
        raise BadInput(
            f"{source.files[0]}: more than {_MOST_LATE:,} rows are out of order; sort it by step"
        )
    scan.lag = max(scan.lag, newest - row.step)
    for fork in reversed(scan.forks):
        if row.step > fork.fork_step:
            break
        branch = fork.parent
    scan.late.append(row._replace(branch=branch))


def _joined(row: Row, later: Row, tally: Tally) -> Row:
    """Two records of one step as one row."""
    if _contradicts(row, later):
        tally.add(_REPLACED, f"step {row.step:,}")
    elif all(name in row.values or is_bookkeeping(name) for name in later.values):
        tally.add(_REPEATED, f"step {row.step:,}")
    return row._replace(
        values=row.values | later.values,
        time=row.time or later.time,
        source=row.source if row.source is not None else later.source,
    )


def _contradicts(row: Row, other: Row) -> bool:
    """Whether a metric has another value there; an epoch or a duration may differ."""
    return any(
        name in row.values and not _equal(row.values[name], value) and not is_bookkeeping(name)
        for name, value in other.values.items()
    )


def _equal(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)


def _joined_late(rows: list[Row], tally: Tally) -> LateRows:
    joined: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        earlier = joined[row.branch].get(row.step)
        joined[row.branch][row.step] = row if earlier is None else _joined(earlier, row, tally)
    return {branch: dict(sorted(found.items())) for branch, found in joined.items()}


def _with_late(rows: Iterator[Row], late: LateRows) -> Iterator[Row]:
    """The rows with the late ones put at the steps they name."""
    waiting = {branch: iter(found.values()) for branch, found in late.items()}
    heads = {branch: next(found, None) for branch, found in waiting.items()}
    for given in rows:
        row, apart = given, None
        while (head := heads.get(row.branch)) is not None and head.step <= row.step:
            if head.step < row.step:
                yield head
            elif _contradicts(row, head):
                apart = head
            else:
                row = row._replace(values=head.values | row.values)
            heads[row.branch] = next(waiting[row.branch], None)
        yield row
        if apart is not None:
            yield apart


def _named(rows: Iterator[Row], naming: Naming) -> Iterator[Row]:
    columns = naming.columns
    for step, given, branch, time, source in rows:
        values = {}
        for column, value in given.items():
            name, factor = columns[column]
            values[name] = value if factor == 1.0 else value * factor
        yield Row(step, values, branch, time, source)


def _digest(source: Source) -> str:
    whole = hashlib.sha256()
    for path in source.files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]
