"""Records as rows of numbers, still under the names of the file and in its order."""

from collections.abc import Iterator

from autopilot.schema import Row
from autopilot_evals.importers.layout import Layout
from autopilot_evals.importers.source import Entry, Source, Tally
from autopilot_evals.importers.values import LAST_STEP, is_blank, number, step_number, unix_time

_TEXT_SHOWN = 30


def readings(source: Source, layout: Layout, tally: Tally) -> Iterator[Row]:
    """Every record that has a step and a number; what has not is counted in the tally.

    A column named ``source`` that holds text becomes the row's source.
    """
    for at, entry in enumerate(source.entries(tally), 1):
        fields = dict(entry.fields)
        step = _step(entry, fields, layout, tally, at)
        if step is None:
            continue
        given = fields.pop(layout.time, None) if layout.time is not None else entry.time
        origin = _source(fields) if "source" in fields else None
        values = numbers(fields, tally, at)
        if not values:
            tally.add("records without a number: left out", f"record {at:,}")
            continue
        yield Row(
            step, values, time=0.0 if given is None else unix_time(given) or 0.0, source=origin
        )


def numbers(fields: dict[str, object], tally: Tally, at: int) -> dict[str, float]:
    """The fields that hold numbers; text that is none is counted, blanks are not."""
    values: dict[str, float] = {}
    for name, value in fields.items():
        if isinstance(value, float):
            values[name] = value
        elif not is_blank(value):
            given = number(value)
            if given is None:
                tally.add(f"{name}: not a number, left out", f"record {at:,}: {_shown(value)}")
            else:
                values[name] = given
    return values


def _source(fields: dict[str, object]) -> str | None:
    given = fields["source"]
    if not isinstance(given, str) or is_blank(given) or number(given) is not None:
        return None
    del fields["source"]
    return given


def _step(
    entry: Entry, fields: dict[str, object], layout: Layout, tally: Tally, at: int
) -> int | None:
    given = entry.step if layout.step is None else fields.pop(layout.step, None)
    if type(given) is int and 0 <= given <= LAST_STEP:
        return given
    if is_blank(given):
        tally.add("records without a step: left out", f"record {at:,}")
        return None
    step = step_number(given)
    if step is None:
        tally.add(
            "steps that are not whole numbers from 0 on: left out",
            f"record {at:,}: {_shown(given)}",
        )
    return step


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}…"
