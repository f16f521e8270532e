"""``import`` and ``export``: recordings from other programs, and to them."""

from pathlib import Path
from typing import Annotated

import typer

from autopilot.cli.output import Json, console, print_json
from autopilot.errors import BadInput

Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="COLUMN=METRIC",
        help="What a column is to be called; repeat it. The column's own name keeps that.",
    ),
]
Step = Annotated[
    str | None,
    typer.Option("--step", metavar="COLUMN", help="The step column, if the guess is wrong."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(name="import")(import_recording)
    app.command(name="export")(export_recording)


def import_recording(
    format: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="jsonl, csv, tensorboard, trainer_state, lightning, wandb, mlflow, or auto.",
        ),
    ],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A file, or the directory of a run.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The run directory to make.")
    ],
    maps: Maps = None,
    step: Step = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The run's name for people; else the file's.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a run directory of a run that another program recorded.

    Prints what was taken for which metric, what was repaired and what was left out. Then
    `autopilot log DIR` and `autopilot replay DIR` read it like a run of your own.

    autopilot import auto lightning_logs/version_0 -o runs/past

    autopilot import csv log.csv -o runs/past --step iter --map "train loss=loss"
    """
    from autopilot.console.words import clean
    from autopilot.recording import is_run
    from autopilot_evals.importers import guess_format, open_recording, write_run_directory

    if path.exists() and is_run(path):
        raise BadInput(f"{path}: is a run of Autopilot already; log and replay read it as it is")
    if format == "auto" and path.exists():
        format = guess_format(path)
    recorded = open_recording(path, format=format, names=_names(maps or []), step=step)
    name = name or recorded.name
    count = write_run_directory(recorded, output, name=name, origin=f"{format} {path.name}")
    if json:
        about = {"run_dir": str(output), "name": name, "run_id": recorded.run_id, "format": format}
        print_json({**about, "rows": count, "forks": recorded.forks, "remarks": recorded.remarks})
        return
    console.print(f"{output}: {count:,} rows of {path} ({format})", markup=False, soft_wrap=True)
    for remark in recorded.remarks:
        console.print(f"  {clean(remark)}", markup=False, soft_wrap=True)


def export_recording(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run directory, or any file that import can read."),
    ],
    format: Annotated[
        str, typer.Option("--format", "-f", help="parquet, csv, jsonl or tensorboard.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="PATH", help="A new file; for tensorboard, a dir."),
    ],
    json: Json = False,
) -> None:
    """Write a run's rows for other programs: step, branch, time, source and every metric.

    autopilot export runs/past --format parquet -o past.parquet
    """
    from autopilot_evals.exporters import export_run
    from autopilot_evals.importers import open_recording

    count = export_run(open_recording(run), output, format)
    if json:
        print_json({"path": str(output), "format": format, "rows": count})
        return
    console.print(f"{output}: {count:,} rows of {run} ({format})", markup=False, soft_wrap=True)


def _names(maps: list[str]) -> dict[str, str]:
    names = {}
    for given in maps:
        column, equals, metric = given.rpartition("=")
        if not equals or not column or not metric:
            raise BadInput(f"--map {given!r}: write COLUMN=METRIC, such as 'train loss=loss'")
        if column in names:
            raise BadInput(f"--map: column {column!r} is named twice")
        names[column] = metric
    return names
