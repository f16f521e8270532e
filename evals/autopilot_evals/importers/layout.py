"""Where a record says which step it is of, and when it was written."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from autopilot.errors import BadInput
from autopilot_evals.importers.names import is_held_out, known_metric, listed, plain
from autopilot_evals.importers.source import Entry, Source, Tally
from autopilot_evals.importers.values import number, step_number, unix_time

STEP_COLUMNS: Final = (
    "step", "global_step", "trainer_global_step", "train_global_step", "training_step",
    "train_step", "current_steps", "iteration", "iterations", "iter", "num_updates", "update",
    "updates", "_step", "total_timesteps", "time_total_timesteps", "timesteps", "epoch",
)  # fmt: skip
"""Names of a step column, compared as the names of metrics are. The first is taken that at least
half as many records have as the commonest of them."""

TIME_COLUMNS: Final = ("wall_time", "_timestamp", "timestamp", "created_at", "datetime", "date")
"""Names of the time at which a record was written, the first coming first. ``time`` is one, too,
where it holds Unix times; smaller numbers in it are seconds a step took."""

_SAMPLE: Final = 1_000
_EARLIEST: Final = 1e9


@dataclass(frozen=True)
class Layout:
    """How the records of a source are read.

    Attributes:
        step: The column of the step; None where the format says it apart.
        time: The column of the time, if there is one.
        training: Whether there are metrics of training steps, not only of evaluations.
        exported: Whether Autopilot wrote the file: then rows are taken as they stand.
        remarks: What was guessed.
    """

    step: str | None
    time: str | None
    training: bool
    exported: bool
    remarks: tuple[str, ...]


def lay_out(source: Source, step: str | None) -> Layout:
    """Look at the first thousand records.

    Args:
        source: What to read.
        step: The step column, if the user named one.

    Raises:
        BadInput: There are no records, or no column that could be the step.
    """
    tally = Tally()
    sample = list(itertools.islice(source.entries(tally), _SAMPLE))
    path = source.files[0]
    if not any(entry.fields for entry in sample):
        why = f": {tally.lines()[0]}" if tally.lines() else ""
        raise BadInput(f"{path}: holds no rows that read as {source.format}{why}")
    columns = Counter(
        name for entry in sample for name in entry.fields if number(entry.fields[name]) is not None
    )
    exported = not source.sets_step and all(
        isinstance(entry.fields.get("branch"), str) and "wall_time" in entry.fields
        for entry in sample
    )
    remarks = ["written by `autopilot export`: rows are as they were"] if exported else []
    if source.sets_step:
        if step is not None:
            raise BadInput(
                f"step: {source.format} says itself which step a row is of; leave it out"
            )
    else:
        step, guessed = _step_column(source, sample, columns, step)
        remarks += [guessed] if guessed and not exported else []
    time = _time_column(sample, columns)
    training = any(known_metric(name) and not is_held_out(name) for name in columns)
    return Layout(step, time, training, exported, tuple(remarks))


def _step_column(
    source: Source, sample: list[Entry], columns: Mapping[str, int], named: str | None
) -> tuple[str, str]:
    path = source.files[0]
    if not columns:
        raise BadInput(f"{path}: no column holds numbers; there are {_all_columns(sample)}")
    if named is not None:
        if not any(named in entry.fields for entry in sample):
            raise BadInput(f"step: {path} has no column {named!r}; there are {listed(columns)}")
        if not any(step_number(entry.fields.get(named)) is not None for entry in sample):
            raise BadInput(f"step: column {named!r} of {path} holds no whole numbers from 0 on")
        return named, ""
    whole = Counter(
        name
        for entry in sample
        for name, value in entry.fields.items()
        if plain(name) in STEP_COLUMNS and step_number(value) is not None
    )
    found = sorted(whole, key=lambda name: STEP_COLUMNS.index(plain(name)))
    enough = [name for name in found if whole[name] * 2 >= max(whole.values())]
    if not enough:
        raise BadInput(f"{path}: no step column; name one with --step; there are {listed(columns)}")
    return enough[0], f"steps: column {enough[0]!r}, by its name"


def _time_column(sample: list[Entry], columns: Mapping[str, int]) -> str | None:
    names = {plain(name): name for entry in sample for name in entry.fields}
    for wanted in TIME_COLUMNS:
        name = names.get(wanted)
        if name and any(unix_time(entry.fields.get(name)) is not None for entry in sample):
            return name
    name = names.get("time")
    given = [unix_time(entry.fields[name]) for entry in sample if name and name in entry.fields]
    return name if given and all(time is not None and time >= _EARLIEST for time in given) else None


def _all_columns(sample: list[Entry]) -> str:
    return listed(dict.fromkeys(name for entry in sample for name in entry.fields))
