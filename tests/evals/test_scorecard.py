"""The scorecard over made-up runs whose figures are reckoned by hand."""

import json
import math
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from control.bench import KIM, OPEN, Bench

from autopilot.cli import main
from autopilot.schema import SetLR
from autopilot_evals.labels import LabelledEvent, Labels, write_labels
from autopilot_evals.scorecard import poisson_upper

STEPS = 600
PACE = 10.0
"""Seconds a step."""
SPIKE = LabelledEvent(kind="spike", signal="loss", onset=300, end=330)
NAN = LabelledEvent(kind="nan", onset=400, end=599)

Figures = Callable[[int, float, float], tuple[float, float]]


def sound(step: int, loss: float, norm: float) -> tuple[float, float]:
    return loss, norm


def spiked(step: int, loss: float, norm: float) -> tuple[float, float]:
    return (3 * loss, 6 * norm) if SPIKE.onset <= step <= SPIKE.end else (loss, norm)


def blown(step: int, loss: float, norm: float) -> tuple[float, float]:
    return (math.nan, math.nan) if step >= NAN.onset else (loss, norm)


def write_run(path: Path, figures: Figures, seed: int, *, timed: bool = True) -> Path:
    rng, lines = random.Random(seed), []
    for step in range(STEPS):
        loss = (2.0 + 2.0 / (1 + 0.03 * step)) * (1 + 0.01 * rng.gauss(0, 1))
        loss, norm = figures(step, loss, 1 + 0.05 * rng.gauss(0, 1))
        row = {"step": step, "loss": loss, "grad_norm": norm}
        lines.append(json.dumps(row | ({"timestamp": 1.7e9 + PACE * step} if timed else {})))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    write_run(folder / "nan.jsonl", blown, 2)
    write_run(folder / "sound.jsonl", sound, 1)
    write_run(folder / "spike.jsonl", spiked, 3)
    return folder


def label(folder: Path, name: str, *events: LabelledEvent) -> None:
    write_labels(folder / f"{name}.labels.json", Labels(episodes=events))


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["autopilot", "scorecard", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


Card = Callable[..., dict[str, Any]]


@pytest.fixture
def card(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Card:
    def scored(*words: object) -> dict[str, Any]:
        code, out, err = run(capsys, monkeypatch, *words, "--json")
        assert (code, err) == (0, "")
        found: dict[str, Any] = json.loads(out)
        return found

    return scored


def by_name(found: dict[str, Any]) -> dict[str, Any]:
    return {one["name"].removesuffix(".jsonl"): one for one in found["runs"]}


def test_figures_are_those_reckoned_by_hand(folder: Path, card: Card) -> None:
    label(folder, "nan", NAN.model_copy(update={"acceptable": ("set_grad_clip+rollback",)}))
    label(folder, "spike", SPIKE.model_copy(update={"harmful": ("rollback",)}))
    label(folder, "sound")
    found = card(folder)
    runs, totals = by_name(found), found["totals"]

    (fitting,) = runs["nan"]["proposals"]
    assert fitting["step"] == 400
    assert fitting["what"].startswith("rollback checkpoint=s380")
    assert (fitting["judgement"], fitting["back_steps"]) == ("acceptable", 20)
    assert runs["nan"]["lead"] == {"steps": 199, "until": "the damage ends"}
    assert runs["nan"]["saved_steps"] == 199 - 20

    (harmful,) = runs["spike"]["proposals"]
    assert (harmful["step"], harmful["judgement"]) == (312, "harmful")
    assert runs["spike"]["wasted_steps"] == harmful["back_steps"] == 312 - 280
    assert runs["sound"]["proposals"] == []

    assert (totals["alarms"], totals["found"], totals["missed"]) == (2, 2, 0)
    assert totals["saved_hours"] == pytest.approx(179 * PACE / 3600)
    assert totals["wasted_hours"] == pytest.approx(32 * PACE / 3600)
    # five rows before an onset to fifty past the end are no healthy rows
    healthy = {"sound": 600, "nan": 395, "spike": 600 - (330 + 50 - 295 + 1)}
    assert {name: one["healthy_rows"] for name, one in runs.items()} == healthy
    assert totals["false"]["rows"] == sum(healthy.values())
    assert totals["false"]["upper"] == pytest.approx(-math.log(0.05) / sum(healthy.values()))
    # what came after an allowed action would have been another run: spike ends at 312
    assert totals["unasked"]["rows"] == 600 + 395 + 295
    assert not found["earned"]
    assert any("harmful: 1" in line for line in found["lacking"])


def test_act_is_earned_below_the_bound_and_one_row_too_few_is_told(
    folder: Path, card: Card
) -> None:
    label(folder, "nan", NAN.model_copy(update={"acceptable": ("rollback+set_grad_clip",)}))
    (folder / "spike.jsonl").unlink()
    words = (folder, "--healthy", folder / "sound.jsonl", "--bound")
    found = card(*words, "0.00302")  # 3 / 995 rows is 0.00301
    assert found["earned"]
    assert found["lacking"] == []
    found = card(*words, "0.003")
    assert not found["earned"]
    assert found["lacking"] == ["4 more healthy rows without an action are needed to show it"]


def test_an_action_on_a_run_declared_healthy_is_false_and_wasted(folder: Path, card: Card) -> None:
    found = card(folder / "spike.jsonl", "--healthy", folder / "spike.jsonl")
    (seen,) = found["runs"]
    assert (seen["known"], len(seen["false"]), seen["found"]) == ("declared healthy", 1, 0)
    assert seen["proposals"][0]["judgement"] == "healthy"
    totals = found["totals"]
    assert (totals["unasked"]["events"], totals["unasked"]["rows"]) == (1, 313)
    assert totals["unasked"]["upper"] == pytest.approx(4.744 / 313, rel=1e-3)
    assert totals["acted_runs"] == [1, 1]
    assert totals["wasted_hours"] == pytest.approx(32 * PACE / 3600)
    assert "without another such action" in found["lacking"][0]


def test_without_labels_nothing_is_called_missed_or_false(folder: Path, card: Card) -> None:
    found = card(folder)
    assert found["totals"]["unknown"] == found["totals"]["runs"] == 3
    assert found["totals"]["alarms"] == 2
    for seen in found["runs"]:
        assert (seen["found"], seen["missed"], seen["false"]) == (None, None, None)
        assert {one["gained_steps"] for one in seen["proposals"]} <= {None}
    assert found["totals"]["unasked"]["rows"] == 0
    assert "--healthy" in found["lacking"][0]
    assert by_name(found)["nan"]["lead"] == {"steps": 199, "until": "the run ends"}


def test_what_the_labels_do_not_judge_stands_in_the_way(folder: Path, card: Card) -> None:
    label(folder, "nan", NAN)
    found = card(folder / "nan.jsonl", "--bound", "0.5")
    assert found["runs"][0]["proposals"][0]["judgement"] == "unjudged"
    assert found["totals"]["unjudged"] == 1
    assert [line.split(":")[0] for line in found["lacking"]] == [
        "allowed actions on which the event's labels say nothing",
        "no allowed action is labelled acceptable",
    ]


def test_what_passed_before_an_agent_was_asked_is_told_apart(tmp_path: Path, card: Card) -> None:
    blip = LabelledEvent(kind="spike", signal="loss", onset=300, end=304)

    def short(step: int, loss: float, norm: float) -> tuple[float, float]:
        return (3 * loss, 6 * norm) if blip.onset <= step <= blip.end else (loss, norm)

    write_run(tmp_path / "blip.jsonl", short, 4)
    label(tmp_path, "blip", blip)
    (seen,) = card(tmp_path)["runs"]
    assert seen["alarms"] == []
    assert seen["missed"] == [{"kind": "spike (loss)", "onset": 300, "watched": True}]


def test_a_policy_that_only_suggests_is_judged_as_if_it_acted(
    folder: Path, tmp_path: Path, card: Card
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'autonomy = "suggest"\n[[rules]]\nname = "back"\nkinds = ["rollback", "set_grad_clip"]\n'
        'verdict = "allow"\n'
    )
    (seen,) = card(folder / "nan.jsonl", "--policy", policy)["runs"]
    assert seen["proposals"][0]["verdict"] == "allow"


def test_an_agent_that_never_acts_has_earned_nothing(folder: Path, card: Card) -> None:
    label(folder, "nan", NAN)
    found = card(folder, "--healthy", folder / "sound.jsonl", "--agent", "observe", "--bound", 0.1)
    assert found["lacking"] == [
        "no allowed action is labelled acceptable: nothing shows that it helps"
    ]


def test_without_times_steps_are_given(
    tmp_path: Path, card: Card, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "nan.jsonl", blown, 2, timed=False)
    label(tmp_path, "nan", NAN)
    totals = card(tmp_path)["totals"]
    assert (totals["saved_hours"], totals["saved_steps"]) == (None, 179)
    _, out, _ = run(capsys, monkeypatch, tmp_path)
    assert "179 steps saved" in out


def test_how_far_ahead_of_a_person_the_agent_was(tmp_path: Path, card: Card) -> None:
    bench = Bench(OPEN, tmp_path / "journal.sqlite")
    bench.rows(40)
    bench.rows(20, lr=0.0)
    bench.propose(SetLR(value="plan"), actor=KIM)
    bench.apply()
    bench.rows(40)
    bench.plane.end("ended", "done")
    bench.plane.close()
    (seen,) = card(tmp_path)["runs"]
    first = seen["proposals"][0]
    assert 41 <= first["step"] < 60
    assert seen["lead"] == {"steps": 60 - first["step"], "until": "a person acts"}


def test_a_folder_skips_what_is_no_run_and_says_so(folder: Path, card: Card) -> None:
    (folder / "notes.csv").write_text("who,what\nme,nothing\n")
    (folder / "README.md").write_text("# Runs\n")
    found = card(folder)
    assert len(found["runs"]) == 3
    (line,) = found["left_out"]
    assert line.startswith("notes.csv: ")


def test_people_get_one_page(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    label(folder, "nan", NAN)
    for number in range(7):
        write_run(folder / f"more-{number}.jsonl", sound, 10 + number)
    code, out, _ = run(capsys, monkeypatch, folder, "--healthy", folder / "sound.jsonl")
    assert code == 0
    assert len(out.splitlines()) <= 40
    assert "act: not earned yet" in out
    assert "nobody said what happened in 8 of 10 runs" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "RUNS"),
        (("/nowhere",), "/nowhere"),
        (("{folder}", "--bound", "0"), "--bound 0"),
        (("{folder}", "--agent", "nobody"), "nobody"),
        (("{folder}", "--healthy", "{folder}/nan.jsonl"), "its labels say nan at step 400"),
        (("{folder}/broken.txt",), "broken.txt"),
    ],
)
def test_bad_input_is_one_clear_line(
    words: tuple[str, ...],
    complaint: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    label(folder, "nan", NAN)
    (folder / "broken.txt").write_text("nothing to see\n")
    given = [word.format(folder=folder) for word in words]
    code, out, err = run(capsys, monkeypatch, *given)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("events", "upper"),
    [(0, 2.99573), (1, 4.74386), (5, 10.51303), (10, 16.96222), (2000, 2075.14)],
)
def test_the_bound_is_the_exact_one_of_tables(events: int, upper: float) -> None:
    assert poisson_upper(events) == pytest.approx(upper, rel=1e-5)


@pytest.mark.skipif(
    not os.environ.get("AUTOPILOT_RECORDINGS"),
    reason="AUTOPILOT_RECORDINGS does not name a folder of recorded runs",
)
def test_runs_of_other_people_agree_with_the_suite(card: Card) -> None:
    totals = card(os.environ["AUTOPILOT_RECORDINGS"])["totals"]
    assert totals["found"] + totals["missed"] == 36
    assert totals["false"]["rows"] == 95_777
    assert totals["unasked"]["events"] <= totals["false"]["events"]
