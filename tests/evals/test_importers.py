"""What the importers make of tables and JSON lines: steps, branches, names, remarks."""

import csv
import json
import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from autopilot.errors import BadInput
from autopilot.recording import Fork, RecordedRun
from autopilot.schema import Row
from autopilot_evals.importers import open_recording
from autopilot_evals.importers.names import ALIASES, KNOWN, name_columns

FOLDER = os.environ.get("AUTOPILOT_RECORDINGS")


def lines(path: Path, *records: dict[str, Any] | str) -> Path:
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records))
    return path


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def rows(recorded: RecordedRun) -> list[tuple[str, int, dict[str, float]]]:
    return [(row.branch, row.step, row.values) for row in recorded.rows()]


def told(recorded: RecordedRun, words: str) -> str:
    found = [remark for remark in recorded.remarks if words in remark]
    assert len(found) == 1, recorded.remarks
    return found[0]


def test_json_lines_become_rows_under_known_names(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "log.jsonl",
        {"iter": 10, "train/loss": 2.5, "lr-AdamW": 0.1, "ms": 250, "odd": 7},
        {"iter": 20, "train/loss": 2.0, "lr-AdamW": 0.1, "ms": 300, "odd": 8},
    )
    recorded = open_recording(file)
    assert list(recorded.rows()) == [
        Row(10, {"loss": 2.5, "lr": 0.1, "step_time": 0.25, "odd": 7.0}),
        Row(20, {"loss": 2.0, "lr": 0.1, "step_time": 0.3, "odd": 8.0}),
    ]
    assert "'iter'" in told(recorded, "steps: column")
    assert "train/loss as loss" in told(recorded, "taken:")
    assert "ms as step_time (times 0.001)" in told(recorded, "taken:")
    assert told(recorded, "unknown to detectors").endswith(": odd")
    assert "every 10 (median)" in told(recorded, "2 rows, steps 10 to 20")


def test_every_pass_over_the_rows_begins_anew(tmp_path: Path) -> None:
    recorded = open_recording(
        lines(tmp_path / "a.jsonl", *({"step": s, "loss": 1.0} for s in range(5)))
    )
    half = recorded.rows()
    assert [next(half).step, next(half).step] == [0, 1]
    assert [row.step for row in recorded.rows()] == [0, 1, 2, 3, 4]
    assert [row.step for row in half] == [2, 3, 4]


def test_the_same_recording_has_the_same_identity_wherever_it_lies(tmp_path: Path) -> None:
    one = open_recording(lines(tmp_path / "one.jsonl", {"step": 1, "loss": 1.0}))
    same = open_recording(lines(tmp_path / "same.jsonl", {"step": 1, "loss": 1.0}))
    other = open_recording(lines(tmp_path / "other.jsonl", {"step": 1, "loss": 1.5}))
    assert one.run_id == same.run_id != other.run_id
    assert (one.name, same.name) == ("one", "same")


@pytest.mark.parametrize("word", ["NaN", "nan", "Infinity", "-inf", "+Inf"])
def test_non_finite_values_are_read_from_words(tmp_path: Path, word: str) -> None:
    wanted = float(word)
    for file in (
        lines(tmp_path / "text.jsonl", {"step": 1, "loss": word}),
        table(tmp_path / "text.csv", f"step,loss\n1,{word}\n"),
    ):
        (row,) = open_recording(file).rows()
        assert row.values["loss"] == wanted or math.isnan(row.values["loss"]) == math.isnan(wanted)


def test_bare_non_finite_words_that_are_not_json_are_read(tmp_path: Path) -> None:
    file = lines(tmp_path / "bare.jsonl", '{"step": 1, "loss": NaN, "lr": -Infinity}')
    (row,) = open_recording(file).rows()
    assert math.isnan(row.values["loss"])
    assert row.values["lr"] == -math.inf


def test_values_that_are_no_numbers_are_named_with_their_count(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        {"step": 1, "loss": 1.0, "phase": "warm-up", "shape": [1, 2], "gap": None},
        {"step": 2, "loss": 1.0, "phase": "main", "nested": {"norm": 2.0}},
        {"step": 3, "phase": "main"},
        {"note": "saved"},
        {"step": -1, "loss": 9.0},
        {"step": 2.5, "loss": 9.0},
    )
    recorded = open_recording(file)
    assert [row[2] for row in rows(recorded)] == [{"loss": 1.0}, {"loss": 1.0, "nested/norm": 2.0}]
    assert told(recorded, "phase:") == (
        "phase: not a number, left out (3, first record 1: 'warm-up')"
    )
    assert "(1, first record 1: [1, 2])" in told(recorded, "shape:")
    assert "(1, first record 3)" in told(recorded, "records without a number")
    assert "(1, first record 4)" in told(recorded, "records without a step")
    assert "(2, first record 5: -1)" in told(recorded, "steps that are not whole numbers")


def test_a_run_that_went_back_goes_on_as_a_branch(tmp_path: Path) -> None:
    steps = [*range(0, 100, 10), *range(50, 120, 10), *range(20, 50, 10)]
    file = lines(
        tmp_path / "a.jsonl", *({"step": s, "loss": float(i)} for i, s in enumerate(steps))
    )
    recorded = open_recording(file)
    assert recorded.forks == (Fork("resume-1", "main", 49), Fork("resume-2", "resume-1", 19))
    assert [(row.branch, row.step) for row in recorded.rows()] == [
        *(("main", s) for s in range(0, 100, 10)),
        *(("resume-1", s) for s in range(50, 120, 10)),
        *(("resume-2", s) for s in range(20, 50, 10)),
    ]
    assert "90 to 50" in told(recorded, "branch resume-1")


def test_evaluation_rows_written_late_are_no_resume_and_stand_at_their_step(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        *({"step": s, "epoch": 0, "loss": 1.0} for s in (10, 20, 30)),
        {"step": 20, "epoch": 0, "val_loss": 2.0},
        {"step": 15, "epoch": 0, "val_loss": 3.0},
        {"step": 40, "epoch": 0, "loss": 1.0},
    )
    recorded = open_recording(file)
    assert recorded.forks == ()
    assert rows(recorded) == [
        ("main", 10, {"epoch": 0.0, "loss": 1.0}),
        ("main", 15, {"epoch": 0.0, "val_loss": 3.0}),
        ("main", 20, {"epoch": 0.0, "loss": 1.0, "val_loss": 2.0}),
        ("main", 30, {"epoch": 0.0, "loss": 1.0}),
        ("main", 40, {"epoch": 0.0, "loss": 1.0}),
    ]
    assert told(recorded, "late").startswith("2 rows were written late, by up to 15 steps")


def test_a_late_evaluation_belongs_to_the_branch_its_step_lies_on(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        *({"step": s, "loss": 1.0} for s in (10, 20, 30, 40)),
        *({"step": s, "loss": 0.5} for s in (30, 40)),
        {"step": 20, "val_loss": 2.0},
        {"step": 30, "val_loss": 3.0},
    )
    found = rows(open_recording(file))
    assert ("main", 20, {"loss": 1.0, "val_loss": 2.0}) in found
    assert ("resume-1", 30, {"loss": 0.5, "val_loss": 3.0}) in found
    assert len(found) == 6


def test_a_run_of_evaluations_alone_still_shows_that_it_went_back(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", *({"step": s, "reward": 1.0} for s in (1, 2, 3, 2, 3, 4)))
    assert open_recording(file).forks == (Fork("resume-1", "main", 1),)


def test_rows_of_one_step_are_merged_repeats_counted_and_second_values_win(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        {"step": 1, "loss": 1.0},
        {"step": 1, "val_loss": 5.0},
        {"step": 2, "loss": 2.0, "lr": "NaN"},
        {"step": 2, "loss": 2.0, "lr": "NaN"},
        {"step": 3, "loss": 3.0},
        {"step": 3, "loss": 3.5, "lr": 0.1},
    )
    recorded = open_recording(file)
    found = rows(recorded)
    assert found[0] == ("main", 1, {"loss": 1.0, "val_loss": 5.0})
    assert [step for _, step, _ in found] == [1, 2, 3]
    assert found[2] == ("main", 3, {"loss": 3.5, "lr": 0.1})
    assert told(recorded, "repeat the one before").endswith("(1, first step 2)")
    assert told(recorded, "second value").endswith("(1, first step 3)")


def test_gaps_and_mixed_cadences_are_told(tmp_path: Path) -> None:
    steps = [*range(0, 100, 10), *range(1000, 1040, 5)]
    remark = told(
        open_recording(lines(tmp_path / "a.jsonl", *({"step": s, "loss": 1.0} for s in steps))),
        "18 rows",
    )
    assert "every 10 (median), mixed: 53% at that spacing, others 5 to 910" in remark
    assert "gaps of over 10 times that: 1, the longest 910 steps after step 90" in remark


def test_the_first_name_of_the_table_is_taken_and_its_rivals_kept(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"step": 1, "train_loss": 3.0, "loss": 1.0, "Loss": 2.0})
    recorded = open_recording(file)
    assert rows(recorded)[0][2] == {"train_loss": 3.0, "loss": 1.0, "Loss": 2.0}
    assert "Loss (also a loss), train_loss (also a loss)" in told(recorded, "beside the one taken")


def test_every_alias_is_taken_and_stands_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "recordings.md").read_text().split("## Names")[1]
    table = {line.split("`")[1]: line for line in guide.splitlines() if line.startswith("| `")}
    for metric, aliases in ALIASES.items():
        assert metric in KNOWN
        for alias in aliases:
            assert name_columns([alias]).columns[alias][0] == metric
            assert f" {alias}" in table[metric], alias


def test_names_given_come_before_the_table(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"step": 1, "ppl": 3.0, "loss": 1.0, "reward": 2.0})
    recorded = open_recording(file, names={"ppl": "loss", "reward": "reward"})
    assert rows(recorded)[0][2] == {"loss": 3.0, "recorded/loss": 1.0, "reward": 2.0}
    assert "loss as recorded/loss" in told(recorded, "moved aside")


@pytest.mark.parametrize(
    ("column", "given", "seconds"),
    [
        ("_timestamp", 1.7e9, 1.7e9),
        ("timestamp", 1_700_000_000_000, 1.7e9),
        ("created_at", "2023-11-14T22:13:20+00:00", 1.7e9),
        ("time", 1.7e9, 1.7e9),
    ],
)
def test_times_are_read_as_unix_seconds(
    tmp_path: Path, column: str, given: object, seconds: float
) -> None:
    (row,) = open_recording(
        lines(tmp_path / "a.jsonl", {"step": 1, "loss": 1.0, column: given})
    ).rows()
    assert row == Row(1, {"loss": 1.0}, time=seconds)


def test_small_times_are_seconds_a_step_took(tmp_path: Path) -> None:
    (row,) = open_recording(
        lines(tmp_path / "a.jsonl", {"step": 1, "loss": 1.0, "time": 0.5})
    ).rows()
    assert row == Row(1, {"loss": 1.0, "step_time": 0.5})


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_tables_are_read_whatever_separates_their_cells(tmp_path: Path, mark: str) -> None:
    text = "\ufeffEpoch,Step,train loss,lr\r\n0,1,2.5,\r\n0,2,,0.1,9\r\n".replace(",", mark)
    recorded = open_recording(table(tmp_path / "a.txt", text), format="csv")
    assert rows(recorded) == [
        ("main", 1, {"Epoch": 0.0, "loss": 2.5}),
        ("main", 2, {"Epoch": 0.0, "lr": 0.1}),
    ]
    assert "(1, first line 3)" in told(recorded, "cells beyond the last column")


def test_columns_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    recorded = open_recording(table(tmp_path / "a.csv", "step,loss,loss\n1,2.0,3.0\n"))
    assert rows(recorded)[0][2] == {"loss": 2.0, "loss.2": 3.0}
    assert "'loss'" in told(recorded, "name of an earlier one")


def test_lines_that_a_crash_cut_off_are_counted(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl", {"step": 1, "loss": 1.0}, "", "[1]", '{"step": 2, "lo', "\0" * 99
    )
    recorded = open_recording(file)
    assert len(rows(recorded)) == 1
    assert "(3, first line 3)" in told(recorded, "not a JSON object")


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        file = tmp_path / f"{count}.csv"
        body = "".join(f"{s},{1 / (s + 1)},0.1\n" for s in range(count))
        file.write_text(f"step,loss,lr\n{body}")
        del body
        tracemalloc.start()
        recorded = open_recording(file)
        assert sum(1 for _ in recorded.rows()) == count
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(2_000)
    assert peak(20_000) < peak(4_000) + 100_000


BAD: list[tuple[str, str | bytes | None, dict[str, Any], str]] = [
    ("none.csv", None, {}, "no such file"),
    ("empty.csv", "", {}, "is empty"),
    ("empty.jsonl", "", {"format": "jsonl"}, "holds no rows that read as jsonl"),
    ("junk.bin", bytes(range(256)) * 20, {}, "not a text file"),
    ("junk.csv", b"step,\0loss\n1,2\n", {}, "not a text file"),
    ("latin.csv", b"step,loss\n1,\xe9\n", {}, "not a text file in UTF-8"),
    ("words.txt", "hello\nworld\n", {}, "of a known format; name it: jsonl, csv, tensorboard"),
    (
        "words.jsonl",
        "hello\n",
        {"format": "jsonl"},
        "not a JSON object: left out (1, first line 1)",
    ),
    (
        "nostep.csv",
        "loss,lr\n1,2\n",
        {},
        "no step column; name one with --step; there are loss, lr",
    ),
    ("text.csv", "step,name\n1,a\n", {}, "no column but the step's holds numbers"),
    ("words.csv", "a,b\nx,y\n", {}, "no column holds numbers; there are a, b"),
    ("fine.csv", "step,loss\n1,2\n", {"step": "iter"}, "no column 'iter'; there are step, loss"),
    ("half.csv", "t,loss\n0.5,2\n", {"step": "t"}, "'t' of"),
    (
        "fine.csv",
        "step,loss\n1,2\n",
        {"names": {"loss": "lass"}},
        "'lass' for 'loss' is not a known",
    ),
    ("fine.csv", "step,loss\n1,2\n", {"names": {"lass": "loss"}}, "no numeric column 'lass'"),
    ("two.csv", "step,a,b\n1,2,3\n", {"names": {"a": "loss", "b": "loss"}}, "both"),
    ("fine.csv", "step,loss\n1,2\n", {"format": "xlsx"}, "'xlsx' is none of jsonl, csv"),
    ("state.json", '{\n"log_history": 3}', {}, "'log_history'"),
    ("state.json", "{\n", {}, "not a JSON document"),
    ("late.csv", "step,loss\n" + "1,2\n" * 2, {"format": "mlflow"}, "no run with metrics"),
    ("runs.csv", "Step,a - loss,b - loss\n1,2,3\n", {}, "holds several runs (a, b)"),
    ("x.wandb", b"no such thing", {}, ""),
]


@pytest.mark.parametrize(("name", "content", "options", "words"), BAD)
def test_bad_input_is_named_in_one_line(
    tmp_path: Path, name: str, content: str | bytes | None, options: dict[str, Any], words: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(BadInput) as error:
        open_recording(file, **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no recording of a known format"):
        open_recording(tmp_path)


def test_a_file_in_utter_disorder_is_refused_and_not_held_in_memory(tmp_path: Path) -> None:
    body = "".join(f"{s},,1.0\n" for s in range(100_001))
    file = table(tmp_path / "a.csv", f"step,loss,val_loss\n200000,1.0,\n{body}")
    with pytest.raises(BadInput, match="out of order; sort it by step"):
        open_recording(file)


@pytest.mark.skipif(not FOLDER, reason="AUTOPILOT_RECORDINGS does not name a folder")
def test_every_recorded_run_opens_with_as_many_rows_as_it_has_steps() -> None:
    assert FOLDER is not None
    with (Path(FOLDER) / "index.csv").open() as index:
        for label in csv.DictReader(index):
            recorded = open_recording(Path(FOLDER) / label["file"])
            steps = [row.step for row in recorded.rows()]
            assert steps == sorted(set(steps))
            left_out = [r for r in recorded.remarks if "left out" in r]
            assert not left_out, (label["file"], left_out)
            second = sum("second value" in remark for remark in recorded.remarks)
            assert len(steps) == int(label["n_rows"]) - second
