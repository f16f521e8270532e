"""What a flight ends with: the figures as JSON, a table with the story, and a picture."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autopilot.console.story import interventions_view
from autopilot.console.words import number
from autopilot.schema import metrics
from autopilot_evals.demo.flight import ARMS, Flight

_LABEL = {
    "alone": "left alone",
    "pilot": "with the pilot",
    "reference": "as it should be",
}
_COLOUR = {"alone": "#c44e52", "pilot": "#4c72b0", "reference": "#8c8c8c"}


def as_json(flight: Flight, picture: Path | None) -> dict[str, Any]:
    """The figures of a flight."""
    arms: dict[str, Any] = {}
    for name in ARMS:
        arm = flight.arms[name]
        assert arm.result is not None, "the flight has ended"
        arms[name] = {
            "final_val_loss": arm.result["final_val_loss"],
            "steps": arm.result["steps"],
            "losses_sha256": arm.losses_digest(),
            "run_dir": str(arm.run_dir),
            "interventions": [r.model_dump(mode="json") for r in arm.interventions()],
        }
    gain = flight.gain()
    return {
        "scenario": flight.scenario.name,
        "family": flight.scenario.family,
        "seed": flight.seed,
        "arms": arms,
        "gain": gain if gain is None or math.isfinite(gain) else str(gain),
        "picture": str(picture) if picture is not None else None,
        "trouble": flight.trouble,
    }


def print_summary(flight: Flight, console: Console, picture: Path | None) -> None:
    """The table, the interventions with old and new values, and what it comes to."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("")
    table.add_column("held-out loss", justify="right")
    table.add_column("steps", justify="right")
    table.add_column("interventions", justify="right")
    for name in ARMS:
        arm = flight.arms[name]
        assert arm.result is not None, "the flight has ended"
        style = "bold" if name == "pilot" else ""
        count = str(len(arm.interventions()))
        row = (_LABEL[name], number(arm.val_loss()), str(arm.result["steps"]), count)
        table.add_row(*row, style=style)
    console.print()
    console.print(table)
    console.print()
    console.print(interventions_view(flight.arms["pilot"].interventions()))
    console.print()
    console.print(_verdict(flight))
    for trouble in flight.trouble:
        console.print(f"[red]{trouble}[/red]")
    pilot = flight.arms["pilot"].run_dir
    console.print(f"the whole story: autopilot log {pilot}", markup=False, soft_wrap=True)
    if picture is not None:
        console.print(f"the picture: {picture}", markup=False, soft_wrap=True)


def _verdict(flight: Flight) -> str:
    gain = flight.gain()
    if gain is not None:
        return (
            f"The pilot closed [bold]{gain:.0%}[/bold] of the gap between the run left alone and "
            "the run as it should be."
        )
    same = len({flight.arms[name].losses_digest() for name in ("alone", "pilot")}) == 1
    if same:
        return "Nothing was sick, and the pilot changed nothing: all losses are equal, bit for bit."
    return "[red]Nothing was sick, but the piloted run differs from the one left alone.[/red]"


def draw_picture(flight: Flight, path: Path) -> Path:
    """Losses of the three arms, and where the pilot intervened."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 4.5), dpi=130)
    for name in ("reference", "alone", "pilot"):
        arm = flight.arms[name]
        journal = arm.journal()
        losses = (
            []
            if journal is None
            else [r.values[metrics.LOSS] for r in journal.all_rows() if metrics.LOSS in r.values]
        )
        steps = range(1, len(losses) + 1)
        axis.plot(steps, _smooth(losses), linewidth=1.0, color=_COLOUR[name], label=_LABEL[name])
    for i, (at, words) in enumerate(_marks(flight)):
        axis.axvline(at, color=_COLOUR["pilot"], linewidth=0.8, linestyle=":")
        axis.annotate(
            words,
            (at, 0.98 - 0.05 * i),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=_COLOUR["pilot"],
        )
    # A loss that explodes would flatten everything else: guessing is as bad as it needs to look.
    worst = max(float((arm.result or {}).get("worst_loss", 0)) for arm in flight.arms.values())
    if worst > 0:
        axis.set_ylim(top=min(axis.get_ylim()[1], 1.25 * worst))
    axis.set_xlabel("optimizer steps executed")
    axis.set_ylabel("training loss (running median of 9)")
    axis.set_title(f"{flight.scenario.title} (seed {flight.seed})", loc="left", fontsize=11)
    axis.legend(frameon=False, loc="lower left")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return path


def _smooth(values: list[float]) -> list[float]:
    from statistics import median

    return [median(values[max(0, i - 4) : i + 5]) for i in range(len(values))]


def _marks(flight: Flight) -> list[tuple[int, str]]:
    """Executed steps at which interventions were applied, in words."""
    marks, executed = [], 0
    arm = flight.arms["pilot"]
    journal = arm.journal()
    if journal is None:
        return []
    order: dict[tuple[str, int], int] = {}
    for row in journal.all_rows():
        if metrics.LOSS in row.values:
            executed += 1
            order[row.branch, row.step] = executed
    for record in arm.interventions():
        assert record.receipt is not None
        kinds = " + ".join(i.kind for i in record.proposal.interventions)
        at = order.get(_applied_at(record.receipt.changes, record.receipt.step, order))
        if at is not None:
            marks.append((at, f"{record.id}: {kinds}"))
    return marks


def _applied_at(changes: Any, step: int, order: dict[tuple[str, int], int]) -> tuple[str, int]:
    branch = next((str(c.old) for c in changes if c.field == "branch"), None)
    if branch is not None:
        return branch, step
    return next(((b, s) for b, s in reversed(order) if s == step), ("", step))
