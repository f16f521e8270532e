"""The flight recorder: nothing acknowledged is lost, nothing altered goes unnoticed."""

import errno
import fcntl
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.errors import BadInput, JournalError, NotFound
from autopilot.journal import Journal, JournalReader, file_system
from autopilot.journal.blocks import BLOCK_ROWS
from autopilot.schema import SCHEMA_VERSION, Event, Row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.create(path, run_id="r1", name="demo") as opened:
        yield opened


def note(journal: Journal, text: str, **body: object) -> Event:
    return journal.append(
        "note", step=3, branch="main", actor="human:kim", body={"text": text, **body}, time=12.5
    )


def loss_rows(steps: range, branch: str = "main", offset: float = 0.0) -> list[Row]:
    return [Row(step, {"loss": step + offset}, branch, 100.0 + step) for step in steps]


def writer_process(path: Path, code: str) -> subprocess.Popen[str]:
    head = (
        "import sys, time\nfrom autopilot.journal import Journal\n"
        "from autopilot.schema import Row\n"
        f"journal = Journal.create({str(path)!r}, run_id='r1', name='demo')\n"
        "def note(n):\n"
        "    e = journal.append('note', step=n, branch='main', actor='system', body={}, time=1.0)\n"
        "    print(e.seq, flush=True)\n"
    )
    return subprocess.Popen([sys.executable, "-c", head + code], stdout=subprocess.PIPE, text=True)


def test_events_are_numbered_from_one_and_chained(journal: Journal) -> None:
    first, second = note(journal, "a"), note(journal, "b")
    assert (first.seq, second.seq, journal.last_seq) == (1, 2, 2)
    assert first.hash != second.hash == journal.last_hash
    assert journal.events() == [first, second]
    assert journal.events(after=1) == [second]
    assert journal.events(limit=1) == [first]
    assert journal.events(kinds=["finding"]) == []
    assert journal.events(kinds=["note", "finding"]) == [first, second]
    journal.verify()


def test_an_event_is_answered_as_it_reads_back(path: Path, journal: Journal) -> None:
    event = note(journal, "x", values=(1, math.nan), deep={"inf": -math.inf}, odd="a\ud800b")
    assert event.body == {
        "text": "x", "values": [1, "NaN"], "deep": {"inf": "-Infinity"}, "odd": "a?b",
    }  # fmt: skip
    with Journal.read(path) as reader:
        assert reader.events() == [event]
        assert reader.events()[0].model_dump_json()
    journal.verify()


def test_what_is_not_json_is_refused_and_costs_nothing_else(journal: Journal) -> None:
    journal.append_rows(loss_rows(range(3)))
    with pytest.raises(BadInput, match="cannot journal note"):
        note(journal, "x", thing=object())
    with pytest.raises(BadInput, match="step 9"):
        journal.append_rows([Row(8, {"loss": 1.0}), Row(9, {"loss": "high"})])  # type: ignore[dict-item]
    with pytest.raises(BadInput, match="no branch 'b9'"):
        journal.append_rows(loss_rows(range(3, 5)) + loss_rows(range(3, 5), "b9"))
    long = loss_rows(range(3, 2 * BLOCK_ROWS))
    no_numbers = (Row(77, {"loss": None}), Row("a", {"loss": 1.0}))  # type: ignore[dict-item, arg-type]
    no_times = (Row(77, {"loss": 1.0}, time=math.nan), Row(77, {"loss": 1.0}, time=math.inf))
    for wrong in (*no_numbers, *no_times, Row(77, {"loss": 10**400}), Row(2**70, {})):
        with pytest.raises(BadInput, match=f"cannot journal the row of step {wrong.step}: "):
            journal.append_rows([*long, wrong])
    assert len(journal.rows("main")) == 3
    assert note(journal, "y").seq == 1


def test_a_time_of_minus_zero_is_no_tampering(path: Path) -> None:
    with Journal.create(path, run_id="r1", name="demo") as journal:
        journal.append("note", step=1, branch="main", actor="system", body={}, time=-0.0)
        journal.append_rows([Row(1, {"loss": -0.0}, time=-0.0)])
    with Journal.read(path) as reader:
        reader.verify()
        assert math.copysign(1.0, reader.rows("main")[0].values["loss"]) == -1.0


def test_non_finite_values_come_back_as_floats(path: Path, journal: Journal) -> None:
    values = {"loss": math.nan, "grad_norm": math.inf, "low": -math.inf, "lr": 0.1, "n": 3}
    journal.append_rows([Row(1, values, source="shard-7")])
    journal.flush()
    with Journal.read(path) as reader:
        (row,) = reader.rows("main")
        assert math.isnan(row.values.pop("loss"))
        assert row.values == {"grad_norm": math.inf, "low": -math.inf, "lr": 0.1, "n": 3.0}
        assert row.source == "shard-7"
        assert reader.series("grad_norm", "main", 100) == [(1, math.inf)]
        assert math.isnan(reader.value_at("main", "loss", 1) or 0.0)


def test_own_reads_see_rows_before_the_flush_and_others_after(path: Path, journal: Journal) -> None:
    journal.append_rows(loss_rows(range(4)))
    with Journal.read(path) as reader:
        assert journal.value_at("main", "loss", 2) == 2
        assert [row.step for row in journal.rows("main", last=2)] == [2, 3]
        assert reader.rows("main") == []
        journal.flush()
        assert len(reader.rows("main")) == 4
        assert reader.row_count == 4


def test_rows_can_be_asked_for_by_step(journal: Journal) -> None:
    journal.append_rows(loss_rows(range(10)))
    assert [r.step for r in journal.rows("main", from_step=3, to_step=5)] == [3, 4, 5]
    assert [r.step for r in journal.rows("main", last=2, to_step=5)] == [4, 5]
    assert journal.rows("main", last=0) == []
    assert journal.value_at("main", "loss", 77) is None
    assert journal.value_at("main", "other", 5) is None
    with pytest.raises(NotFound, match=r"no branch 'b9'; there are main"):
        journal.rows("b9")


def test_a_rollback_neither_loses_nor_blends_curves(journal: Journal) -> None:
    journal.append_rows(loss_rows(range(1, 8)))
    event = journal.start_branch("b1", "main", 4, time=1.0, actor="agent:rules")
    assert (event.kind, event.step, event.branch) == ("branch", 4, "b1")
    assert event.body == {"name": "b1", "parent": "main", "fork_step": 4}
    journal.append_rows(loss_rows(range(5, 7), "b1", 0.5))
    assert [r.values["loss"] for r in journal.rows("b1")] == [1, 2, 3, 4, 5.5, 6.5]
    assert [r.values["loss"] for r in journal.rows("main")] == [1, 2, 3, 4, 5, 6, 7]
    assert [r.values["loss"] for r in journal.rows("b1", last=3)] == [4, 5.5, 6.5]
    assert journal.series("loss", "b1", 99)[-2:] == [(5, 5.5), (6, 6.5)]
    assert journal.value_at("b1", "loss", 5) == 5.5
    assert journal.value_at("b1", "loss", 7) is None
    assert [r.branch for r in journal.all_rows()] == ["main"] * 7 + ["b1"] * 2
    assert [r.step for r in journal.all_rows(after=7)] == [5, 6]
    with pytest.raises(BadInput, match="exists already"):
        journal.start_branch("b1", "main", 2, time=1.0)
    with pytest.raises(BadInput, match="no such branch"):
        journal.start_branch("b2", "b7", 2, time=1.0)
    journal.verify()


def bits(rows: Iterable[Row]) -> list[object]:
    """Rows to the bit: NaN equals NaN, 0.0 is not -0.0, and the order of the metrics counts."""

    def exact(value: float) -> str:
        return "nan" if math.isnan(value) else value.hex()

    return [
        (r.step, [(n, exact(v)) for n, v in r.values.items()], r.branch, exact(r.time), r.source)
        for r in rows
    ]


BRANCHES = ("main", "b1", "caf\u00e9 \N{SNOWMAN}")
SOME_ROWS = st.lists(
    st.builds(
        Row,
        step=st.integers(-3, 12) | st.integers(-(2**63), 2**63 - 1),
        values=st.dictionaries(st.sampled_from(["loss", "lr"]) | st.text(max_size=5), st.floats()),
        branch=st.sampled_from(BRANCHES),
        time=st.floats(allow_nan=False, allow_infinity=False),
        source=st.none() | st.text(max_size=5),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(SOME_ROWS, st.booleans()), max_size=8),
    st.integers(0, 9),
    st.integers(-3, 12),
    st.integers(-3, 12),
)
def test_any_rows_come_back_to_the_bit_and_in_order(
    helpings: list[tuple[list[Row], bool]], last: int, from_step: int, to_step: int
) -> None:
    appended: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        with Journal.create(path, run_id="r", name="n") as journal:
            for name in BRANCHES[1:]:
                journal.start_branch(name, "main", -(2**63), time=0.0)
            for helping, flushed in helpings:
                journal.append_rows(helping)
                appended += helping
                if flushed:
                    journal.flush()
                    with Journal.read(path) as reader:
                        assert bits(reader.all_rows()) == bits(appended)
                assert bits(journal.all_rows(after=last)) == bits(appended[last:])
                assert journal.row_count == len(appended)
            assert_rows_by_branch(journal, appended, last, from_step, to_step)
        with Journal.read(path) as reader:
            assert_rows_by_branch(reader, appended, last, from_step, to_step)
            reader.verify()


def assert_rows_by_branch(
    journal: JournalReader, appended: list[Row], last: int, from_step: int, to_step: int
) -> None:
    for branch in BRANCHES:
        own = sorted((r for r in appended if r.branch == branch), key=lambda row: row.step)
        own = [r for r in own if branch == "main" or r.step > -(2**63)]
        if branch == "main":
            assert bits(journal.rows(branch)) == bits(own)
        inside = [r for r in own if from_step <= r.step <= to_step]
        found = journal.rows(branch, from_step=from_step, to_step=to_step)
        assert bits(found) == bits(inside)
        found = journal.rows(branch, last=last, from_step=from_step, to_step=to_step)
        assert bits(found) == bits(inside[max(len(inside) - last, 0) :])
        reported = [r for r in appended if r.branch == branch and "loss" in r.values]
        at = [r.values["loss"] for r in reported if r.step == to_step]
        assert repr(journal.value_at(branch, "loss", to_step)) == repr(at[-1] if at else None)


def test_names_and_sources_that_cannot_be_stored_are_mended(journal: Journal) -> None:
    journal.append_rows([Row(1, {"a\ud800": 1.0, "b": 2.0}, source="s\udfff"), Row(2, {"a?": 3.0})])
    first, second = journal.rows("main")
    assert (first.values, first.source) == ({"a?": 1.0, "b": 2.0}, "s?")
    assert journal.series("a?", "main", 10) == [(1, 1.0), (2, 3.0)]
    assert second.values == {"a?": 3.0}


def test_what_is_done_to_a_row_after_it_was_appended_is_not_recorded(journal: Journal) -> None:
    row = Row(1, {"loss": 1.0})
    journal.append_rows([row])
    row.values["loss"] = 9.0
    assert journal.rows("main") == [Row(1, {"loss": 1.0})]


def test_rows_read_meanwhile_are_neither_lost_nor_doubled(journal: Journal) -> None:
    journal.append_rows(loss_rows(range(700)))
    rows = journal.all_rows()
    seen = [next(rows).step for _ in range(600)]
    for step in range(700, 1400):
        journal.append_rows(loss_rows(range(step, step + 1)))
        if step % 7 == 0:
            journal.flush()
    assert seen + [row.step for row in rows] == list(range(1400))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 12)), max_size=6)
)
def test_histories_are_what_was_lived_through(forks: list[tuple[int, int, int]]) -> None:
    lived = {"main": [(step, step + 0.0) for step in range(1, 11)]}
    with Journal.create(":memory:", run_id="r", name="n") as journal:
        journal.append_rows([Row(s, {"loss": v}) for s, v in lived["main"]])
        for number, (which, where, length) in enumerate(forks, 1):
            parent, name = sorted(lived)[which % len(lived)], f"b{number}"
            fork = where % (len(lived[parent]) + 1)
            own = [(step, step + number / 10) for step in range(fork + 1, fork + 1 + length)]
            journal.start_branch(name, parent, fork, time=0.0)
            journal.append_rows([Row(s, {"loss": v}, name) for s, v in own])
            lived[name] = lived[parent][:fork] + own
        for name, expected in lived.items():
            assert [(r.step, r.values["loss"]) for r in journal.rows(name)] == expected
            assert journal.series("loss", name, 1000) == expected
            tail = journal.rows(name, last=4)
            assert [(r.step, r.values["loss"]) for r in tail] == expected[-4:]
            assert all(journal.value_at(name, "loss", step) == value for step, value in expected)
        journal.verify()


def test_a_long_curve_keeps_its_extremes_in_few_points(journal: Journal) -> None:
    total = 12 * BLOCK_ROWS + 123
    rows = [Row(s, {"loss": math.sin(s / 999) + 3}) for s in range(total)]
    rows[17_171] = Row(17_171, {"loss": 50.0})
    rows[41_000] = Row(41_000, {"loss": math.nan})
    rows[-1] = Row(total - 1, {"loss": -7.0, "val_loss": 1.5})
    for first in range(0, total, 1000):
        journal.append_rows(rows[first : first + 1000])
    for points in (10, 100, 2000):
        curve = journal.series("loss", "main", points)
        assert len(curve) <= points
        assert (17_171, 50.0) in curve
        assert (total - 1, -7.0) in curve
        assert any(step == 41_000 and math.isnan(value) for step, value in curve)
        assert [step for step, _ in curve] == sorted(step for step, _ in curve)
    assert journal.series("val_loss", "main", 100) == [(total - 1, 1.5)]
    assert journal.series("unknown", "main", 100) == []
    journal.start_branch("b1", "main", 30_050, time=0.0)
    assert max(step for step, _ in journal.series("loss", "b1", 100)) <= 30_050
    journal.verify()


@pytest.mark.parametrize("points", [4, 40, 300])
def test_a_curve_of_rows_that_differ_shows_the_first_of_equal_extremes(
    journal: Journal, points: int
) -> None:
    chance = random.Random(7)
    rows = []
    for step in range(2 * BLOCK_ROWS + 70):
        values = {"loss": float(chance.randrange(50)), "lr": 0.5}
        if step % 4 == 3:
            values = {"digest": chance.random(), **values}
        if step % 10 == 9:
            values["ratio"] = chance.random()
        rows.append(Row(step, values))
    for first in range(0, len(rows), 130):
        journal.append_rows(rows[first : first + 130])
        journal.flush()
    for name in ("loss", "lr", "digest", "ratio"):
        known = [(row.step, row.values[name]) for row in rows if name in row.values]
        curve = journal.series(name, "main", points)
        assert len(curve) <= points
        assert set(curve) <= set(known)
        assert min(known, key=lambda point: point[1]) in curve
        assert max(known, key=lambda point: point[1]) in curve


def test_rows_are_sealed_in_blocks_and_at_close(path: Path, journal: Journal) -> None:
    journal.append_rows(loss_rows(range(BLOCK_ROWS + 10)))
    assert [e.body["last"] for e in journal.events(kinds=["rows_sealed"])] == [BLOCK_ROWS]
    journal.close()
    with Journal.read(path) as reader:
        seals = [(e.body["first"], e.body["last"]) for e in reader.events(kinds=["rows_sealed"])]
        assert seals == [(1, BLOCK_ROWS), (BLOCK_ROWS + 1, BLOCK_ROWS + 10)]
        reader.verify()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        note(journal, "late")
    with pytest.raises(JournalError, match="closed"):
        journal.append_rows(loss_rows(range(1)))


def test_another_process_reads_while_one_writes(path: Path) -> None:
    code = "for n in range(10**6):\n  journal.append_rows([Row(n, {'loss': 1.0})])\n  note(n)\n"
    with writer_process(path, code) as process:
        assert process.stdout
        try:
            seen = int(process.stdout.readline())
            with Journal.read(path) as reader:
                for _ in range(20):
                    seen = int(process.stdout.readline())
                    events = reader.events(after=seen - 1)
                    assert events[0].seq == seen
                    assert len(reader.rows("main")) >= seen
                    reader.verify()
        finally:
            process.kill()


def test_a_killed_writer_leaves_everything_it_acknowledged(path: Path) -> None:
    code = "for n in range(10**6):\n  journal.append_rows([Row(n, {'loss': 1.0})])\n  note(n)\n"
    with writer_process(path, code) as process:
        assert process.stdout
        time.sleep(0.1)
        lines = [process.stdout.readline() for _ in range(50)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
    acknowledged = int([line for line in lines if line.endswith("\n")][-1])
    with Journal.read(path) as reader:
        assert reader.last_seq >= acknowledged
        assert len(reader.rows("main")) >= acknowledged
        reader.verify()
    with Journal.open(path) as journal:
        sealed = journal.events(kinds=["rows_sealed"])[-1].body
        assert (sealed["first"], sealed["last"]) == (1, journal.row_count)
        seq = note(journal, "on").seq
        assert [event.seq for event in journal.events()] == list(range(1, seq + 1))
        journal.append_rows(loss_rows(range(5)))
    with Journal.read(path) as reader:
        reader.verify()


def test_only_one_process_writes(path: Path) -> None:
    with writer_process(path, "note(1)\nsys.stdin.read()\n") as process:
        assert process.stdout
        process.stdout.readline()
        try:
            with pytest.raises(JournalError, match=f"process {process.pid} writes it"):
                Journal.open(path)
        finally:
            process.kill()
    with Journal.open(path) as journal:
        assert note(journal, "mine now").seq == 2


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE events SET body = replace(body, 'second', 'zecond') WHERE seq = 2", "event 2 "),
        ("UPDATE events SET actor = 'human:eve' WHERE seq = 3", "event 3 "),
        ("UPDATE events SET time = time + 1e-6 WHERE seq = 1", "event 1 "),
        ("UPDATE events SET hash = upper(hash) WHERE seq = 2", "event 2 "),
        ("DELETE FROM events WHERE seq = 2", "event 2 is missing"),
        ("DELETE FROM events WHERE kind = 'branch'", "event 4 is missing"),
        ("UPDATE meta SET value = 'other' WHERE key = 'run_id'", "event 1 "),
        ("UPDATE branches SET fork_step = 3 WHERE name = 'b1'", "event 4 "),
        ("UPDATE branches SET name = 'nain' WHERE name = 'main'", "sealed by event 5"),
        ("UPDATE pages SET cells = zeroblob(90) WHERE first_row = 3", "sealed by event 5"),
        ("UPDATE pages SET cells = 'x' WHERE first_row = 1", "sealed by event 5"),
        ("UPDATE pages SET last_step = 77 WHERE first_row = 1", "sealed by event 5"),
        ("UPDATE pages SET branch = 2 WHERE first_row = 1", "sealed by event 5"),
        ("UPDATE pages SET branch = 9 WHERE first_row = 1", "sealed by event 5"),
        ("UPDATE pages SET last_row = 3 WHERE first_row = 1", "sealed by event 5"),
        ("UPDATE pages SET first_row = 0 WHERE first_row = 1", "sealed by event 5"),
        ("UPDATE pages SET first_row = 9, last_row = 10 WHERE first_row = 1", "sealed by event 5"),
        ("UPDATE pages SET cells = (SELECT max(cells) FROM pages)", "sealed by event 5"),
        ("DELETE FROM pages WHERE first_row = 1", "sealed by event 5"),
        ("DELETE FROM pages WHERE first_row = 3", "sealed by event 5"),
        ("UPDATE summaries SET low = -1 WHERE level = 1", "sealed by event 5"),
    ],
)  # fmt: skip
def test_tampering_is_found_and_named(path: Path, statement: str, found: str) -> None:
    with Journal.create(path, run_id="r1", name="demo") as journal:
        for text in ("first", "second", "third"):
            note(journal, text)
        journal.start_branch("b1", "main", 2, time=1.0)
        for first in (0, 2):
            journal.append_rows(loss_rows(range(first, first + 2)))
            journal.flush()
    db = sqlite3.connect(path)
    with db:
        assert db.execute(statement).rowcount
    db.close()
    with Journal.read(path) as reader, pytest.raises(JournalError, match=found):
        reader.verify()


def test_one_byte_changed_in_the_file_is_found(path: Path) -> None:
    with Journal.create(path, run_id="r1", name="demo") as journal:
        note(journal, "needle-one")
        journal.append_rows([Row(1, {"loss": 1.0}, source="needle-two")])
    whole = path.read_bytes()
    for needle in (b"needle-one", b"needle-two"):
        assert whole.count(needle) == 1
        path.write_bytes(whole.replace(needle, needle.upper()))
        with Journal.read(path) as reader, pytest.raises(JournalError, match="altered"):
            reader.verify()


def test_pages_that_changed_places_are_found(path: Path) -> None:
    with Journal.create(path, run_id="r1", name="demo") as journal:
        for offset in (0.0, 0.5):
            journal.append_rows(loss_rows(range(2), offset=offset))
            journal.flush()
    db = sqlite3.connect(path)
    first, second = db.execute(
        "SELECT first_row, last_row FROM pages ORDER BY first_row"
    ).fetchall()
    with db:
        for now, then in ((first, (90, 91)), (second, first), ((90, 91), second)):
            db.execute(
                "UPDATE pages SET first_row = ?, last_row = ? WHERE first_row = ?", (*then, now[0])
            )
    db.close()
    with Journal.read(path) as reader:
        assert [row.values["loss"] for row in reader.all_rows()] == [0.5, 1.5, 0.0, 1.0]
        with pytest.raises(JournalError, match="sealed by event 1"):
            reader.verify()


def test_no_byte_of_a_page_can_change_unnoticed(path: Path) -> None:
    rows = [Row(1, {"loss": 1.0}), Row(2, {"loss": 2.0, "lr": 0.1}, source="shard-7")]
    with Journal.create(path, run_id="r1", name="demo") as journal:
        journal.append_rows(rows)
    db = sqlite3.connect(path)
    (cells,) = db.execute("SELECT cells FROM pages").fetchone()
    for place, byte in enumerate(cells):
        altered = cells[:place] + bytes([byte ^ 1]) + cells[place + 1 :]
        with db:
            db.execute("UPDATE pages SET cells = ?", (altered,))
        with Journal.read(path) as reader:
            with pytest.raises(JournalError, match="sealed by event 1, was altered"):
                reader.verify()
            try:
                assert bits(reader.all_rows()) != bits(rows)
            except JournalError as error:
                assert "a row between 1 and 2 was altered" in str(error)  # noqa: PT017
    for altered in (cells[:-1], cells + b"x", b"", cells[:3]):
        with db:
            db.execute("UPDATE pages SET cells = ?", (altered,))
        with Journal.read(path) as reader:
            with pytest.raises(JournalError, match="was altered"):
                reader.verify()
            with pytest.raises(JournalError, match="a row between 1 and 2 was altered"):
                reader.rows("main")
    db.close()


def test_a_journal_in_the_form_from_before_pages_is_refused_in_one_line(path: Path) -> None:
    Journal.create(path, run_id="r1", name="demo").close()
    db = sqlite3.connect(path)
    db.executescript("DROP TABLE pages; CREATE TABLE rows (id INTEGER PRIMARY KEY, vals TEXT)")
    db.close()
    for opening in (Journal.open, Journal.read):
        with pytest.raises(JournalError, match="from before the first release") as raised:
            opening(path)
        assert "\n" not in str(raised.value)


def test_what_is_no_journal_is_refused_in_one_line(tmp_path: Path) -> None:
    text, empty, other = tmp_path / "a.txt", tmp_path / "b", tmp_path / "c.sqlite"
    text.write_text("not a database, but long enough to look at" * 50)
    empty.touch()
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE t (x)")
    db.close()
    cases = [
        (tmp_path / "missing", "no such file"),
        (tmp_path, "a directory"),
        (text, "not a database"),
        (empty, "not a journal"),
        (other, "not a journal"),
    ]
    for opening in (Journal.open, Journal.read):
        for file, said in cases:
            with pytest.raises(JournalError, match=said) as raised:
                opening(file)
            assert "\n" not in str(raised.value)


def test_a_journal_cut_short_is_refused(path: Path) -> None:
    with Journal.create(path, run_id="r1", name="demo") as journal:
        journal.append_rows(loss_rows(range(2000)))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(JournalError), Journal.read(path) as reader:
        reader.verify()


def test_a_newer_version_is_refused(path: Path) -> None:
    Journal.create(path, run_id="r1", name="demo").close()
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (SCHEMA_VERSION + 1,))
    db.close()
    for opening in (Journal.open, Journal.read):
        with pytest.raises(JournalError, match="newer"):
            opening(path)


@pytest.mark.parametrize("where", ["/proc/journal.sqlite", "/no/such/folder/journal.sqlite"])
def test_where_nothing_can_be_written_none_is_created(where: str) -> None:
    with pytest.raises(JournalError, match=f"{where}: "):
        Journal.create(where, run_id="r", name="n")


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(JournalError, match="exists"):
        Journal.create(path, run_id="r", name="n")
    assert path.read_text() == "precious"


def test_a_full_disk_is_reported_and_survived(path: Path) -> None:
    with Journal.create(path, run_id="r1", name="demo") as journal:
        note(journal, "before")
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count={pages}")
        journal.append_rows(loss_rows(range(2)))
        with pytest.raises(JournalError, match="full"):
            note(journal, "x" * 40_000)
        with Journal.create(":memory:", run_id="r1", name="demo", continues=journal) as spare:
            assert note(spare, "on").seq == journal.last_seq + 1
            assert spare.events(after=journal.last_seq)[0].body["text"] == "on"
            spare.verify()
        journal._db.execute("PRAGMA max_page_count=100000")
        assert note(journal, "after").seq == journal.last_seq
        journal.verify()


def test_a_file_system_without_locks_is_named_and_written_to_all_the_same(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nfiler:/runs {path.parent} nfs4 rw 0 0\n")
    monkeypatch.setattr(file_system, "_MOUNTS", mounts)
    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with Journal.create(path, run_id="r", name="n") as journal:
        journal.append_rows([Row(1, {"loss": 2.0})])
        note(journal, "kept")
        with Journal.read(path) as reader:
            assert [row.values for row in reader.rows("main")] == [{"loss": 2.0}]
            mode = reader._db.execute("PRAGMA journal_mode").fetchone()
    assert mode != ("wal",)
    with Journal.open(path) as again:
        again.verify()
        note(again, "goes on")
    assert not Path(f"{path}-wal").exists()
    assert "on nfs4 there is no write-ahead log" in caplog.text
    assert "its file system has no locks" in caplog.text


def test_memory_offers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Journal.create(":memory:", run_id="r", name="n") as journal:
        assert isinstance(journal, JournalReader)
        note(journal, "a")
        journal.append_rows(loss_rows(range(BLOCK_ROWS)))
        journal.verify()
        assert json.loads(journal.events()[-1].model_dump_json())["kind"] == "rows_sealed"
    assert list(tmp_path.iterdir()) == []
