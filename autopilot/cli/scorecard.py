"""``autopilot scorecard``: a person's own past runs in, a verdict on one page out."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from autopilot.cli.output import Json, console, print_json
from autopilot.cli.replay import make_pilot
from autopilot.errors import BadInput
from autopilot.policy import read_policy

if TYPE_CHECKING:
    from autopilot_evals.hindsight import Hindsight
    from autopilot_evals.scorecard import Scorecard

BOUND = 1e-4
"""Actions a healthy row that are borne, unless told otherwise."""
_WORDS = {"allow": "allowed", "ask": "asks", "deny": "denied"}
_ENDS = {"the damage ends": "", "a person acts": " p", "the run ends": " e"}
_WIDE = 110
"""Columns of a terminal from which on proposals are shown in full."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(scorecard)


def scorecard(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUNS…",
            help="Run directories, logs of other programs, folders of them, or a corpus.",
            show_default=False,
        ),
    ] = None,
    healthy: Annotated[
        list[Path] | None,
        typer.Option("--healthy", metavar="RUN", help="A run in which nothing was the matter."),
    ] = None,
    agent: Annotated[
        str,
        typer.Option("--agent", help="Who pilots: rules, observe, or package.module:factory."),
    ] = "rules",
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file; by default the default policy.")
    ] = None,
    bound: Annotated[
        float, typer.Option("--bound", help="Allowed actions a healthy row that are borne.")
    ] = BOUND,
    json: Json = False,
) -> None:
    """Replay your own past runs, and say whether the agent has earned to act in the next one.

    Labels beside a run (`autopilot label`) or --healthy say what happened; without them the alarms
    of a run are counted, and nobody can say which were missed or false. Nothing is applied.

    autopilot scorecard runs

    autopilot scorecard runs/a runs/b log.jsonl --healthy runs/c --policy strict.toml

    autopilot scorecard labelled-recordings --agent mine.pilot:make --json
    """
    if not runs and not healthy:
        raise BadInput("RUNS: name at least one recorded run, or a folder of them")
    judged_by = read_policy(policy)
    make_pilot(agent)  # a wrong name ends here, and not after the runs were looked for
    from autopilot_evals.past_runs import find_runs
    from autopilot_evals.scorecard import as_json, score

    found = find_runs(runs or [], healthy or [])
    with nullcontext() if json else console.status(f"replaying {len(found)} runs"):
        card = score(found, lambda: make_pilot(agent), judged_by, bound=bound)
    if json:
        print_json(as_json(card))
    else:
        _show(card)


def _show(card: "Scorecard") -> None:
    totals = card.totals
    console.print(
        f"{card.agent} over {totals.runs} runs, {totals.rows:,} rows; policy "
        f"{card.policy_digest[:8]}, as if autonomy = act",
        style="bold",
    )
    console.print(_table(card.runs))
    for line in (
        *_legend(card.runs),
        *_counts(card),
        *_time(card),
        *_earned(card),
        *_left_out(card),
    ):
        console.print(line)


def _table(runs: Sequence["Hindsight"]) -> Table:
    wide = console.width >= _WIDE
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("run", no_wrap=True)
    for name in ("rows", "alarms", "found", "missed", "false"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("first proposal", no_wrap=True, overflow="ellipsis", ratio=1)
    if wide:
        table.add_column("ahead by", justify="right", no_wrap=True, min_width=10)
    table.add_column("gain", justify="right", no_wrap=True, min_width=8)
    for run in runs:
        table.add_row(
            _short(run.name, 30 if wide else 16),
            f"{run.rows:,}",
            str(len(run.alarms)),
            _count(run.found),
            _count(None if run.missed is None else len(run.missed)),
            _count(None if run.false is None else len(run.false)),
            _proposal(run, wide),
            *([_ahead(run)] if wide else []),
            _gain(run),
        )
    return table


def _short(name: str, most: int) -> str:
    """Names of runs differ at their ends, so the middle gives way."""
    name = name.removesuffix(".jsonl").removesuffix(".csv")
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"


def _count(count: int | None) -> str:
    return "?" if count is None else str(count)


def _proposal(run: "Hindsight", wide: bool) -> Text:
    first = run.first
    if first is None:
        return Text("none", style="dim")
    style = {"harmful": "red", "healthy": "red", "acceptable": "green"}.get(first.judgement, "")
    what = first.what if wide else first.answer
    return Text(f"{first.step:,} {_WORDS[first.verdict]}: {what}", style=style)


def _ahead(run: "Hindsight") -> str:
    if run.lead is None:
        return "-"
    return _span(run.lead.steps, run.seconds_per_step) + _ENDS[run.lead.until]


def _gain(run: "Hindsight") -> str:
    if run.known == "nothing":
        return "?"
    gain = run.saved_steps - run.wasted_steps
    return f"{'+' if gain > 0 else '-'}{_span(abs(gain), run.seconds_per_step)}" if gain else "0"


def _span(steps: int, seconds_per_step: float | None) -> str:
    if seconds_per_step is None:
        return f"{steps:,} st" if steps < 10_000 else f"{steps / 1000:,.1f}k st"
    seconds = steps * seconds_per_step
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _legend(runs: Iterable["Hindsight"]) -> Iterable[Text]:
    shown = {run.lead.until for run in runs if run.lead is not None}
    if console.width >= _WIDE and shown - {"the damage ends"}:
        words = "p: of what a person did then; e: of the run's end, for nobody labelled it"
        yield Text(f"  ahead by {words}", style="dim")


def _counts(card: "Scorecard") -> Iterable[str]:
    totals, false = card.totals, card.totals.false
    watched = f" ({totals.watched} of them told to people, and over before an agent was asked)"
    yield ""
    yield (
        f"alarms {totals.alarms}, found {totals.found} of {totals.found + totals.missed}, missed "
        f"{totals.missed}{watched if totals.watched else ''}"
    )
    if not isnan(false.per_row):
        yield (
            f"false {false.events} in {false.rows:,} healthy rows: {1000 * false.per_row:.3f} in "
            f"1,000 rows (at most {1000 * false.upper:.3f} at 95 %), "
            f"{totals.false_per_1000_steps:.4f} in 1,000 steps"
        )
    if totals.unknown:
        yield (
            f"?: nobody said what happened in {totals.unknown} of {totals.runs} runs; what was "
            "missed and what was false there cannot be known"
        )


def _time(card: "Scorecard") -> Iterable[Text]:
    totals = card.totals
    if totals.unknown == totals.runs:
        return
    parts = []
    if totals.saved_hours is not None and totals.wasted_hours is not None:
        parts.append(f"{totals.saved_hours:.1f} h saved, {totals.wasted_hours:.1f} h wasted")
    if totals.saved_steps or totals.wasted_steps or not parts:
        untimed = " in runs without times" if parts else ""
        parts.append(f"{totals.saved_steps:,} steps saved, {totals.wasted_steps:,} wasted{untimed}")
    line = Text("; ".join(parts))
    line.append(
        "\n  saved: steps (st) of labelled damage after the first fitting proposal, less those it "
        "repeats; assumes that it is carried out at once, and cures. wasted: what unfitting ones "
        "that are allowed repeat, and fitting ones beyond the damage left",
        style="dim",
    )
    if totals.unpriced:
        line.append(
            f"; {totals.unpriced} of them repeat nothing, and what they cost in quality is not "
            "counted",
            style="dim",
        )
    yield line


def _earned(card: "Scorecard") -> Iterable[Text]:
    unasked, (acted, sound) = card.totals.unasked, card.totals.acted_runs
    yield Text("")
    if card.earned:
        yield Text("act: earned", style="bold green")
    else:
        yield Text("act: not earned yet", style="bold red")
    if not isnan(unasked.upper):
        yield Text(
            f"  allowed actions on healthy rows: {unasked.events} in {unasked.rows:,}, at most "
            f"{unasked.upper:.2g} a row at 95 %; bound {card.bound:g}. In {acted} of {sound} runs "
            f"(95 %: at most {100 * card.totals.acted_runs_95[1]:.0f} %)"
        )
    for line in card.lacking:
        yield Text(f"  lacking: {line}")


def _left_out(card: "Scorecard") -> Iterable[Text]:
    from autopilot.console.words import clean

    for line in card.left_out:
        yield Text(f"left out: {clean(line)}", style="dim")
