"""Rows as ``autopilot export`` wrote them: taken as they stand."""

from collections.abc import Iterator

from autopilot.errors import BadInput
from autopilot.recording import Fork
from autopilot.schema import MAIN, Row
from autopilot_evals.importers.readings import numbers
from autopilot_evals.importers.source import Source, Tally
from autopilot_evals.importers.values import number, step_number


def exported_rows(source: Source, forks: list[Fork], tally: Tally) -> Iterator[Row]:
    """The rows in the order they were recorded; forks go to the list as their branches begin.

    Raises:
        BadInput: A row has no step, or is of a branch of which nothing says where it began.
    """
    known = {MAIN}
    for at, entry in enumerate(source.entries(tally), 1):
        fields = dict(entry.fields)
        step, branch = step_number(fields.pop("step", None)), fields.pop("branch", None)
        if step is None or not isinstance(branch, str):
            raise BadInput(
                f"{source.files[0]}: row {at:,}: no step or no branch; export the run again"
            )
        parent, fork_step = fields.pop("parent", None), number(fields.pop("fork_step", None))
        if branch not in known:
            if not isinstance(parent, str) or parent not in known or fork_step is None:
                raise BadInput(
                    f"{source.files[0]}: row {at:,}: does not say where branch {branch!r} began"
                )
            known.add(branch)
            forks.append(Fork(branch, parent, int(fork_step)))
        time, origin = number(fields.pop("wall_time", None)), fields.pop("source", None)
        yield Row(
            step,
            numbers(fields, tally, at),
            branch,
            0.0 if time is None else time,
            None if origin is None else str(origin),
        )
