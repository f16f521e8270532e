"""Reads a run by its directory or its URL."""

import time
from collections.abc import Iterator
from pathlib import Path

from autopilot.client import HttpRun, connect
from autopilot.console.words import clean
from autopilot.errors import BadInput, Unreachable
from autopilot.recording import is_run, read_run
from autopilot.report.account import Account
from autopilot.schema import Event, RunInfo

_ROWS = 10_000
"""Most rows that a control API hands out at once."""


def read_account(run: str) -> Account:
    """Everything a report needs of a run, live or over.

    A run directory is read from its journal; the live process is only asked how it stands.

    Raises:
        NotARun: It is no run directory, or the URL is not a run's.
        JournalError: The journal cannot be read.
        Unreachable: Nobody answers at the URL.
        BadInput: It was imported: no detector watched it, so no verdict can be given.
    """
    if "://" in run or not is_run(Path(run)):
        with connect(run, "viewer", "report") as live:
            return _read_live(run, live)
    recorded = read_run(run)
    for event in recorded.events:
        if event.kind == "run_started" and "imported_from" in event.body:
            source = clean(str(event.body["imported_from"]), 100)
            raise BadInput(
                f"{run}: was imported ({source}), so nobody watched it; `autopilot replay {run}` "
                "shows what would have been seen and done"
            )
    info = _ask(run)
    # The process may have gone on since the journal was read; what it did is in there by now.
    if info is not None and info.seq > max((e.seq for e in recorded.events), default=0):
        recorded = read_run(run)
    return Account(
        place=run,
        name=recorded.name,
        run_id=recorded.run_id,
        rows=recorded.rows,
        events=recorded.events,
        info=info,
        read_at=time.time(),
    )


def _ask(folder: str) -> RunInfo | None:
    """How a run stands by its own word; None where nobody answers for it any more."""
    if not Path(folder).is_dir():
        return None
    try:
        with connect(folder, "viewer", "report") as live:
            return live.info()
    except (BadInput, Unreachable):
        return None


def _read_live(run: str, live: HttpRun) -> Account:
    info = live.info()
    rows = live.rows(last=_ROWS)
    remarks: tuple[str, ...] = ()
    if len(rows) == _ROWS:
        remarks = (f"over its URL only the last {_ROWS:,} rows of a run can be read",)
    return Account(
        place=run,
        name=info.name,
        run_id=info.run_id,
        rows=lambda: iter(rows),
        events=tuple(_events(live)),
        info=info,
        read_at=time.time(),
        remarks=remarks,
    )


def _events(live: HttpRun) -> Iterator[Event]:
    after = 0
    while events := live.events(after):
        yield from events
        after = events[-1].seq
