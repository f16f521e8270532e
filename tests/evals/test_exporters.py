"""Exports hold every row, and read back as the rows they were; imports as run directories."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopilot.cli import main
from autopilot.errors import BadInput
from autopilot.journal import Journal
from autopilot.recording import Fork, RecordedRun, read_run
from autopilot.schema import Row
from autopilot_evals.exporters import EXPORTS, export_run, to_frame
from autopilot_evals.importers import open_recording, write_run_directory

BRANCHED = (
    Row(0, {"loss": 2.0, 'odd name, "quoted"': 1.0}, time=1.7e9),
    Row(1, {"loss": math.nan, "lr": 0.1}, time=1.7e9 + 0.1, source="shard-3"),
    Row(1, {"loss": math.inf, "step": 7.0}, "b2", 1.7e9 + 0.3),
    Row(2, {}, "main", 1.7e9 + 0.4),
    Row(2, {"val_loss": -math.inf}, "b2", 1.7e9 + 0.5, source="12"),
)
FORKS = (Fork("b1", "main", 1), Fork("b2", "b1", 0))  # nothing was recorded on b1


def a_run(rows: tuple[Row, ...] = BRANCHED, forks: tuple[Fork, ...] = FORKS) -> RecordedRun:
    return RecordedRun("run", "id", lambda: iter(rows), forks)


def told(rows: Any) -> str:
    """Rows as text, in which NaN equals NaN and the order of the metrics is no difference."""
    return repr([row._replace(values=dict(sorted(row.values.items()))) for row in rows])


def autopilot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    """Runs a command here; its exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", ["autopilot", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out, printed.err


NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8).filter(
    lambda name: name not in ("step", "branch", "parent", "fork_step", "wall_time", "source")
)
ROWS = st.builds(
    Row,
    step=st.integers(0, 2**53),
    values=st.dictionaries(NAMES, st.floats(), max_size=4),
    branch=st.sampled_from(("main", "b1", "b2")),
    time=st.floats(0, 1e11),
    source=st.none() | NAMES,
)


@pytest.mark.parametrize("format", ["jsonl", "csv"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=12).filter(lambda rows: any(r.values for r in rows))
)
def test_what_is_exported_reads_back_as_the_rows_it_was(
    tmp_path: Path, format: str, rows: list[Row]
) -> None:
    file = tmp_path / f"out.{format}"
    file.unlink(missing_ok=True)
    assert export_run(a_run(tuple(rows)), file, format) == len(rows)
    assert told(open_recording(file, format=format).rows()) == told(rows)


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_branches_read_back_from_where_their_rows_begin(tmp_path: Path, format: str) -> None:
    export_run(a_run(), tmp_path / "out", format)
    recorded = open_recording(tmp_path / "out", format=format)
    assert recorded.forks == (Fork("b2", "main", 0),)
    found = list(recorded.rows())
    assert found[2].values == {"loss": math.inf, "metric/step": 7.0}
    assert told(found[:2]) == told(BRANCHED[:2])
    assert [row.source for row in found] == [None, "shard-3", None, None, "12"]


def test_parquet_tells_missing_from_nan(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    assert export_run(a_run(), tmp_path / "out.parquet", "parquet") == 5
    table = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert repr(table["loss"]) == repr([2.0, math.nan, math.inf, None, None])
    assert table["val_loss"] == [None] * 4 + [-math.inf]
    assert table["branch"] == ["main", "main", "b2", "main", "b2"]
    assert table["parent"] == [None, None, "main", None, None]
    assert table["fork_step"] == [None, None, 0, None, None]
    assert table["wall_time"][1] == 1.7e9 + 0.1


def test_tensorboard_has_a_run_for_every_branch_and_exact_values(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    export_run(a_run(), tmp_path / "tb", "tensorboard")
    seen = EventAccumulator(str(tmp_path / "tb" / "b2"), size_guidance={"tensors": 0})
    seen.Reload()
    assert sorted(seen.Tags()["tensors"]) == ["loss", "step", "val_loss"]
    (found,) = seen.Tensors("val_loss")
    assert (found.step, list(found.tensor_proto.double_val)) == (2, [-math.inf])
    plain = RecordedRun("run", "id", lambda: iter([Row(s, {"loss": s / 7}) for s in range(3)]))
    export_run(plain, tmp_path / "plain", "tensorboard")
    assert [r.values for r in open_recording(tmp_path / "plain").rows()] == [
        {"loss": s / 7} for s in range(3)
    ]


def test_a_frame_tells_missing_from_nan() -> None:
    frame = to_frame(a_run())
    assert list(frame.columns) == [
        "step", "branch", "wall_time", "source", "loss", 'odd name, "quoted"', "lr", "metric/step",
        "val_loss",
    ]  # fmt: skip
    assert list(frame["loss"].isna()) == [False, False, False, True, True]
    assert math.isnan(frame["loss"].array._data[1])
    assert frame["step"].tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("format", [name for name in EXPORTS if name != "parquet"])
def test_an_export_never_overwrites_and_leaves_nothing_half_written(
    tmp_path: Path, format: str
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(BadInput, match="exists already"):
        export_run(a_run(), taken, format)
    assert taken.read_text() == "mine"

    def breaks() -> Any:
        yield BRANCHED[0]
        raise BadInput("the recording ends in junk")

    with pytest.raises(BadInput, match="junk"):
        export_run(RecordedRun("run", "id", breaks), tmp_path / "out", format)
    with pytest.raises(BadInput, match="cannot be written"):
        export_run(a_run(), tmp_path / "no" / "such" / "folder", format)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_imported_run_reads_like_one_that_was_flown(tmp_path: Path) -> None:
    rows = [Row(s, {"loss": 1.0}, time=1.7e9 + s) for s in range(6000)]
    rows += [Row(s, {"loss": 2.0}, "resume-1", 1.71e9 + s) for s in range(3000, 4000)]
    given_run = RecordedRun(
        "past", "id", lambda: iter(rows), (Fork("resume-1", "main", 2999),), remarks=("a remark",)
    )
    assert write_run_directory(given_run, tmp_path / "a" / "run", name="x", origin="csv p") == 7000
    recorded = read_run(tmp_path / "a" / "run")
    assert list(recorded.rows()) == rows
    assert recorded.forks == given_run.forks
    assert (recorded.name, recorded.run_id) == ("x", "id")
    kinds = [event.kind for event in recorded.events if event.kind != "rows_sealed"]
    assert kinds == ["run_started", "branch", "run_ended"]
    assert recorded.events[0].body["remarks"] == ["a remark"]
    assert {event.actor for event in recorded.events} == {"system"}
    with Journal.read(tmp_path / "a" / "run" / "journal.sqlite") as journal:
        journal.verify()
        assert [row.values["loss"] for row in journal.rows("resume-1", from_step=2998)][:3] == [
            1.0, 1.0, 2.0,
        ]  # fmt: skip


def test_import_log_and_export_go_hand_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "log.csv"
    table.write_text("n,train loss,other\n1,2.5,x\n2,nan,y\n3,2.0,z\n2,3.0,z\n")
    run = tmp_path / "runs" / "past"
    code, out, _ = autopilot(
        monkeypatch, capsys, "import", "auto", table, "-o", run, "--step", "n", "--name", "Past",
        "--map", "train loss=val_loss",
    )  # fmt: skip
    assert code == 0
    assert "4 rows of" in out
    assert "train loss as val_loss" in out
    assert "other: not a number, left out (4" in out
    code, out, _ = autopilot(monkeypatch, capsys, "log", run)
    assert code == 0
    assert "imported from csv log.csv" in out
    code, out, _ = autopilot(monkeypatch, capsys, "status", run, "--json")
    told_of = json.loads(out)["run"]
    assert (code, told_of["status"], told_of["step"]) == (0, "ended", 2)
    code, out, _ = autopilot(
        monkeypatch, capsys, "export", run, "--format", "jsonl", "-o", tmp_path / "x", "--json"
    )
    assert (code, json.loads(out)["rows"]) == (0, 4)
    again = open_recording(tmp_path / "x")
    assert told(again.rows()) == told(read_run(run).rows())
    assert again.forks == (Fork("resume-1", "main", 1),)


BAD: list[tuple[str, str]] = [
    ("import auto {0}/none -o {0}/new", "no such file or directory"),
    ("import xlsx {0}/log.csv -o {0}/new", "'xlsx' is none of jsonl, csv"),
    ("import csv {0}/empty.csv -o {0}/new", "empty.csv"),
    ("import auto {0}/log.csv -o {0}/taken", "exists already"),
    ("import auto {0}/log.csv -o {0}/new --map loss", "write COLUMN=METRIC"),
    ("import auto {0}/log.csv -o {0}/new --map loss=lass", "'lass' for 'loss' is not a known"),
    ("import auto {0}/log.csv -o {0}/new --map lass=loss", "no numeric column 'lass'"),
    ("import auto {0}/log.csv -o {0}/new --map loss=lr --map loss=loss", "named twice"),
    ("import auto {0}/log.csv -o {0}/new --step s", "no column 's'"),
    ("import auto {0}/log.csv -o {0}/log.csv/new", "cannot be written"),
    ("import auto {0}/taken -o {0}/new", "a run of Autopilot already"),
    ("import auto {0}/log.csv", "--output"),
    ("export {0}/none --format csv -o {0}/new", "no such file or directory"),
    ("export {0}/log.csv --format xls -o {0}/new", "'xls' is none of parquet, csv, jsonl"),
    ("export {0}/log.csv --format csv -o {0}/log.csv", "exists already"),
]


@pytest.mark.parametrize(("command", "words"), BAD)
def test_a_wrong_import_or_export_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    words: str,
) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n1,2.0\n")
    (tmp_path / "empty.csv").write_text("")
    write_run_directory(a_run(), tmp_path / "taken", name="x", origin="a test")
    before = sorted(tmp_path.iterdir())
    code, out, err = autopilot(monkeypatch, capsys, *command.format(tmp_path).split())
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
