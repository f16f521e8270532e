"""``autopilot demo``: three trainings, and a pilot that earns its keep."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from e2e.flying import AUTOPILOT, autopilot, autopilot_json, ended, start, strict, until


def fly(folder: Path, *words: str) -> Any:
    done = autopilot("demo", "--smoke", "--json", "--folder", folder, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return strict(done.stdout)


def test_the_default_scenario_is_rescued(tmp_path: Path) -> None:
    found = fly(tmp_path / "demo")
    assert (found["scenario"], found["seed"], found["trouble"]) == ("lr-too-high", 0, [])
    assert list(found["arms"]) == ["alone", "pilot", "reference"]
    for arm in found["arms"].values():
        assert math.isfinite(float(arm["final_val_loss"]))
        assert (Path(arm["run_dir"]) / "journal.sqlite").exists()
    assert found["arms"]["alone"]["interventions"] == []
    assert found["arms"]["reference"]["interventions"] == []
    interventions = found["arms"]["pilot"]["interventions"]
    assert interventions
    for record in interventions:
        assert record["actor"] == "agent:rules"
        assert record["receipt"]["proven"] is True
        assert record["receipt"]["changes"]
        assert record["receipt"]["read_back"]
    assert found["gain"] >= 0.5
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    told = autopilot("log", found["arms"]["pilot"]["run_dir"])
    assert told.returncode == 0
    assert "proposed by agent:rules" in told.stdout


@pytest.mark.slow
def test_a_healthy_run_is_left_alone_bit_for_bit(tmp_path: Path) -> None:
    found = fly(tmp_path / "demo", "--scenario", "healthy")
    assert found["arms"]["pilot"]["interventions"] == []
    alone, pilot = (found["arms"][name]["losses_sha256"] for name in ("alone", "pilot"))
    assert alone == pilot
    assert found["gain"] is None


@pytest.mark.parametrize("first", ["lr-too-high"])
def test_the_scenarios_are_listed(first: str) -> None:
    found = autopilot_json("demo", "--scenario", "list")
    names = [scenario["name"] for scenario in found]
    assert names[0] == first
    assert "healthy" in names
    shown = autopilot("demo", "--scenario", "list").stdout
    assert all(name in shown for name in names)


def is_live(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_request_to_end_ends_its_trainings_too(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = start(*AUTOPILOT, "demo", "--folder", folder, output=tmp_path / "said.txt")
    published = [folder / arm / "run.json" for arm in ("alone", "pilot")]
    until(lambda: all(path.exists() for path in published))
    pids = [json.loads(path.read_text())["pid"] for path in published]
    assert all(map(is_live, pids))
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 128 + signal.SIGTERM
    assert not any(map(is_live, pids))
    assert "Traceback" not in (tmp_path / "said.txt").read_text()
