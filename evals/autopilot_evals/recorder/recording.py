"""One scenario as a recording with its labels."""

from pathlib import Path

from autopilot_evals.exporters import export_run
from autopilot_evals.labels import labels_path, write_labels
from autopilot_evals.recorder.labelling import label
from autopilot_evals.recorder.training import train
from autopilot_evals.scenarios import SCENARIOS


def record(folder: Path, seed: int, name: str) -> Path:
    """Train, record and label one scenario; the path of its recording."""
    scenario = SCENARIOS[name]
    sick = train(scenario, seed, "sick")
    reference = sick if scenario.family == "benign" else train(scenario, seed, "reference")
    path = folder / f"{name}.csv"
    path.unlink(missing_ok=True)
    export_run(sick.recorded(name), path, "csv")
    write_labels(labels_path(path), label(scenario, sick, reference))
    return path
