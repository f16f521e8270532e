"""Recorded runs of other people, where AUTOPILOT_RECORDINGS names a folder of them."""

import csv
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autopilot.detectors import DetectorBank
from autopilot.schema import Episode, Row
from autopilot.triage import Triage

FOLDER = os.environ.get("AUTOPILOT_RECORDINGS")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="AUTOPILOT_RECORDINGS does not name a folder of recorded runs"
)

NAMES = {
    "loss": "loss", "train_loss": "loss", "lm loss": "loss", "lm_loss": "loss",
    "train_loss_step": "loss", "grad_norm": "grad_norm", "norm": "grad_norm",
    "lr": "lr", "learning_rate": "lr", "val_loss": "val_loss", "eval_loss": "val_loss",
    "validation/loss": "val_loss", "validation/ctc_loss": "val_loss",
    "ep_rew_mean": "val_accuracy", "validation/accuracy": "val_accuracy",
    "ms": "step_time", "time": "step_time", "iteration-time": "step_time",
    "time_s": "step_time", "elapsed_time_per_iteration": "step_time",
    "data": "data_wait", "loss_scale": "loss_scale",
}  # fmt: skip
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def recording(name: str) -> Iterator[Row]:
    assert FOLDER is not None
    with (Path(FOLDER) / name).open() as lines:
        for line in lines:
            fields = json.loads(line)
            values: dict[str, float] = {}
            for key, given in fields.items():
                value = NON_FINITE.get(given, given) if isinstance(given, str) else given
                if key in NAMES and isinstance(value, int | float):
                    values.setdefault(NAMES[key], float(value))
            if values:
                yield Row(int(fields["step"]), values)


def labels() -> list[dict[str, str]]:
    assert FOLDER is not None
    with (Path(FOLDER) / "index.csv").open() as file:
        return list(csv.DictReader(file))


def episodes(name: str) -> tuple[int, list[Episode]]:
    bank = DetectorBank()
    triage = Triage(bank.loss, bank.grad)
    rows, told = 0, []
    for row in recording(name):
        rows += 1
        told += triage.update(row, bank.update(row))
    return rows, told


def opened(told: list[Episode]) -> set[str]:
    return {e.id for e in told if e.status == "open" and e.diagnosis != "benign"}


def test_healthy_runs_raise_at_most_one_alarm_in_ten_thousand_rows() -> None:
    rows = alarms = 0
    for label in labels():
        if label["has_instability"] == "no":
            count, told = episodes(label["file"])
            rows += count
            alarms += len(opened(told))
    assert rows > 10_000
    assert alarms <= rows / 10_000


def test_most_runs_whose_loss_broke_raise_an_alarm() -> None:
    broken = found = 0
    for label in labels():
        events = json.loads(label["events_json"] or "[]")
        if not any(e["kind"] in ("divergence", "nan") and "signal" not in e for e in events):
            continue
        if label["has_instability"] != "yes" or int(label["n_rows"]) < 50:
            continue
        broken += 1
        found += bool(opened(episodes(label["file"])[1]))
    assert broken >= 10
    assert found >= 0.7 * broken
