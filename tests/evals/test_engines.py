"""Engines spread work over processes or a real Ray: the same results, one clear line, no rest."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from autopilot.cli import main
from autopilot.errors import AutopilotError, BadInput
from autopilot_agents.known import make_agent
from autopilot_evals.corpus import read_corpus
from autopilot_evals.forks import Outcome
from autopilot_evals.labels import LabelledEvent, Labels, write_labels
from autopilot_evals.scenarios import SCENARIOS
from autopilot_evals.scenarios.moves import HALVE
from autopilot_evals.suites import sandbox
from autopilot_evals.suites.engines import Engine, Processes, Ray, make_engine
from autopilot_evals.suites.results import Results

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(autouse=True)
def _no_cluster_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["autopilot", "eval", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, onset in (("early", 200), ("late", 400)):
        losses = (math.nan if step >= onset else 2.0 + math.sin(step) / 50 for step in range(500))
        lines = (json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        event = LabelledEvent(kind="nan", onset=onset, end=499)
        write_labels(folder / f"{name}.labels.json", Labels(episodes=(event,)))
    return folder


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_item_comes_once_with_its_key(jobs: int) -> None:
    items = {str(number): float(number * number) for number in range(20)}
    found = list(Processes(jobs).each(math.sqrt, items))
    assert sorted(found) == sorted((key, float(key)) for key in items)


def never_begun(engine: Engine, folder: Path) -> int:
    """Of 31 pieces of work the first fails; how many of the others were not begun."""
    shell = partial(subprocess.run, check=True)
    words = {str(n): ["sh", "-c", f"sleep 0.2; touch {folder}/{n}"] for n in range(30)}
    with pytest.raises(AutopilotError, match=r"^bad: CalledProcessError: .*status 7") as raised:
        list(engine.each(shell, {"bad": ["sh", "-c", "exit 7"], **words}))
    assert "\n" not in str(raised.value)
    return 30 - len(list(folder.iterdir()))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_is_one_line_that_names_its_item_and_drops_the_rest(
    jobs: int, tmp_path: Path
) -> None:
    assert never_begun(Processes(jobs), tmp_path) > 10


@needs_ray
def test_an_error_on_ray_is_one_line_that_names_its_item_and_drops_the_rest(
    tmp_path: Path,
) -> None:
    assert never_begun(Ray(2), tmp_path) > 10


def test_an_error_that_is_meant_for_users_reaches_them_as_it_is() -> None:
    nowhere = {str(number): Path(f"/nowhere/{number}") for number in range(3)}
    with pytest.raises(BadInput, match=r"^/nowhere/\d: no such folder"):
        list(Processes(2).each(read_corpus, nowhere))


def test_a_process_that_dies_is_one_line() -> None:
    with pytest.raises(AutopilotError, match="a process died at its work"):
        list(Processes(2).each(os._exit, {"a": 1, "b": 1}))


def test_whoever_stops_looking_stops_the_work(tmp_path: Path) -> None:
    shell = partial(subprocess.run, check=True)
    words = {str(n): ["sh", "-c", f"sleep 0.2; touch {tmp_path}/{n}"] for n in range(30)}
    coming = Processes(2).each(shell, words)
    next(coming)
    coming.close()  # type: ignore[attr-defined]
    assert len(list(tmp_path.iterdir())) < 20


@needs_ray
def test_detection_on_ray_is_detection_on_processes(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("detection", "--corpus", str(corpus), "--jobs", "2", "--json")
    there = run(capsys, monkeypatch, *words, "--engine", "ray")
    assert there == run(capsys, monkeypatch, *words)
    assert json.loads(there[1])["lines"]["all"][0]["recall"] == 1.0


def flown(engine: Engine, out: Path) -> list[Outcome]:
    tiny = replace(SCENARIOS["healthy"], steps=80, delay=30, moves=(HALVE,))
    wanted = sandbox.tasks([tiny], ["observe"], 1)
    outcomes = sandbox.fly_all(wanted, make_agent, Results(out), engine=engine)
    return sorted((one.model_copy(update={"seconds": 0.0}) for one in outcomes), key=str)


@pytest.mark.slow
@needs_ray
def test_trainings_on_ray_are_those_of_this_process_bit_for_bit(tmp_path: Path) -> None:
    there = flown(Ray(2), tmp_path / "ray.jsonl")
    assert len(there) == 3
    assert there == flown(Processes(1), tmp_path / "here.jsonl")
    assert there == flown(Processes(1), tmp_path / "ray.jsonl")


@needs_ray
def test_where_no_cluster_answers_is_one_clear_line(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    words = ("detection", "--corpus", str(corpus), "--engine", "ray")
    code, out, err = run(capsys, monkeypatch, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "RAY_ADDRESS=127.0.0.1:1: no Ray cluster answers there" in err


def test_without_the_extra_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = run(capsys, monkeypatch, "decisions", "--engine", "ray")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pip install 'training-autopilot[ray]'" in err


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(BadInput, match="--engine dask: no such engine; known: processes, ray"):
        make_engine("dask", 2)
