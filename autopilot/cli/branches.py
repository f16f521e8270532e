"""``branches`` and ``compare``: the lines of a run's history, listed and held side by side."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from autopilot.cli.output import Json, RunArgument, console, print_json
from autopilot.client import HttpRun, connect
from autopilot.console.words import number
from autopilot.journal.ancestry import Branch
from autopilot.journal.reader import JournalReader
from autopilot.schema import MAIN, Record, Row

if TYPE_CHECKING:
    from autopilot.comparison import Course

_ROWS = 10_000
"""Rows of a branch that are read where only the run's API can be reached."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(branches)
    app.command()(compare)


class Line(Record):
    """A branch as it is listed."""

    name: str
    parent: str | None
    fork_step: int | None
    last_step: int


@dataclass(frozen=True)
class _Live:
    """A run of which only the API can be reached."""

    run: HttpRun

    def branches(self) -> list[Branch]:
        found = [Branch(1, MAIN, None, None)]
        seq = 0
        while events := self.run.events(seq):
            seq = events[-1].seq
            for body in (event.body for event in events if event.kind == "branch"):
                found.append(
                    Branch(len(found) + 1, body["name"], body["parent"], body["fork_step"])
                )
        return found

    def rows(self, branch: str, *, last: int | None = None, from_step: int = 0) -> list[Row]:
        found = self.run.rows(last=min(last or _ROWS, _ROWS), branch=branch)
        return [row for row in found if row.step >= from_step]


_History = _Live | JournalReader


@contextmanager
def _history(run: str) -> Iterator[_History]:
    journal = Path(run) / "journal.sqlite"
    if "://" not in run and journal.exists():
        from autopilot.journal import Journal

        with Journal.read(journal) as reader:
            yield reader
        return
    with connect(run, "viewer", "branches") as live:
        yield _Live(live)


def branches(run: RunArgument, json: Json = False) -> None:
    """List the branches of a run: where each left its parent and how far it came.

    A run branches where somebody goes back ([bold]rollback[/bold]), names a branch
    ([bold]do RUN branch name=low-lr[/bold]) or switches to one
    ([bold]do RUN switch_branch name=main[/bold]). Works on a run that has ended, too.
    """
    with _history(run) as history:
        lines = [_line(history, branch) for branch in history.branches()]
    if json:
        print_json(lines)
        return
    for line in lines:
        origin = "" if line.parent is None else f", leaves {line.parent} after {line.fork_step}"
        console.print(f"{line.name}: to step {line.last_step}{origin}", markup=False)


def _line(history: _History, branch: Branch) -> Line:
    newest = history.rows(branch.name, last=1)
    own = newest[-1].step if newest else 0
    return Line(
        name=branch.name,
        parent=branch.parent,
        fork_step=branch.fork_step,
        last_step=max(own, branch.fork_step or 0),
    )


def compare(
    run: RunArgument,
    one: Annotated[str, typer.Argument(metavar="A", help="A branch.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Only this one; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare what two branches of a run did since they parted, over the steps both have made.

    Examples: [bold]compare runs/a main low-lr[/bold], [bold]compare runs/a main
    low-lr -m loss[/bold]. [bold]branches runs/a[/bold] lists them.
    """
    from autopilot.comparison import compare as compared
    from autopilot.comparison import fork_of

    with _history(run) as history:
        fork = fork_of({branch.name: branch for branch in history.branches()}, one, other)
        rows = {name: history.rows(name, from_step=fork + 1) for name in (one, other)}
    found = compared(rows, fork, metric or ())
    if json:
        print_json(found)
        return
    _show(found.metrics)
    first = found.fork_step + 1
    console.print(f"steps {first} to {found.until}, which both have made", markup=False)


def _show(found: Mapping[str, Mapping[str, "Course"]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("metric", "branch"):
        table.add_column(name, no_wrap=True)
    for name in ("last", "min", "median", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric, courses in found.items():
        for label, (branch, course) in zip((metric, ""), courses.items(), strict=True):
            figures = (course.last, course.minimum, course.median, course.maximum)
            shown = ["-" if figure is None else number(figure) for figure in figures]
            bad = f"{course.non_finite} not finite" if course.non_finite else ""
            table.add_row(escape(label), escape(branch), *shown, bad)
    console.print(table)
