"""Recorded runs of other people, where AUTOPILOT_RECORDINGS names a folder of them."""

import csv
import json
import os
from pathlib import Path

import pytest

from autopilot.detectors import DetectorBank
from autopilot.schema import Episode
from autopilot.triage import Triage
from autopilot_evals.importers import open_recording

FOLDER = os.environ.get("AUTOPILOT_RECORDINGS")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="AUTOPILOT_RECORDINGS does not name a folder of recorded runs"
)


def labels() -> list[dict[str, str]]:
    assert FOLDER is not None
    with (Path(FOLDER) / "index.csv").open() as file:
        return list(csv.DictReader(file))


def episodes(name: str) -> tuple[int, list[Episode]]:
    bank = DetectorBank()
    triage = Triage(bank.loss, bank.grad)
    rows, told = 0, []
    assert FOLDER is not None
    for row in open_recording(Path(FOLDER) / name).rows():
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
