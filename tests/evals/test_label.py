"""Labelling through the real command line, by answers on standard input."""

import json
import math
import random
import subprocess
from pathlib import Path

import pexpect
import pytest
from control.bench import OPEN, Bench
from e2e.flying import AUTOPILOT, PATIENCE, autopilot, environment

from autopilot_evals.corpus import read_corpus
from autopilot_evals.labels import LabelledEvent, Labels, read_labels, write_labels
from autopilot_evals.suggestions import Series, mark, outline


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A run with a spike at 300 to 330 and no number from 500 on."""
    rng, lines = random.Random(3), []
    for step in range(600):
        loss = (2.0 + 2.0 / (1 + 0.03 * step)) * (1 + 0.01 * rng.gauss(0, 1))
        loss = math.nan if step >= 500 else 3 * loss if 300 <= step <= 330 else loss
        lines.append(json.dumps({"step": step, "loss": loss}))
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def answer(path: Path, *answers: str, more: tuple[str, ...] = ()) -> tuple[int, str, str]:
    done = subprocess.run(
        [*AUTOPILOT, "label", str(path), *more],
        input="".join(f"{line}\n" for line in answers),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def labels_of(path: Path) -> tuple[LabelledEvent, ...]:
    return read_labels(path.with_name(f"{path.stem}.labels.json")).episodes


def test_suggestions_are_what_happened(log: Path) -> None:
    done = autopilot("label", log, "--suggest", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    spike, nan = (LabelledEvent.model_validate(one["event"]) for one in json.loads(done.stdout))
    assert (spike.kind, spike.signal) == ("spike", "loss")
    assert abs(spike.onset - 300) <= 2
    assert 300 < spike.end <= 400
    assert (nan.kind, nan.onset, nan.end) == ("nan", 500, 599)
    assert not log.with_name("log.labels.json").exists()


def test_suggestions_are_accepted_changed_and_judged(log: Path) -> None:
    code, out, err = answer(
        log,
        *("c", "spike", "300", "330", "loss", "high", "nothing, evaluate", "", "scale_lr"),
        *("a", "skip_batches + rollback", "", ""),
        "d",
    )
    assert (code, err) == (0, "")
    assert "suggestion 2 of 2" in out
    spike, nan = labels_of(log)
    assert spike == LabelledEvent(
        kind="spike", signal="loss", onset=300, end=330,
        acceptable=("nothing", "evaluate"), harmful=("scale_lr",),
    )  # fmt: skip
    assert (nan.kind, nan.onset, nan.end, nan.confidence) == ("nan", 500, 599, "medium")
    assert nan.acceptable == ("rollback+skip_batches",)
    (run,) = read_corpus(log.parent)
    assert run.labels.episodes == (spike, nan)


def test_blank_keeps_what_was_suggested(log: Path) -> None:
    code, _, _ = answer(log, "c", "", "", "", "", "", "", "", "", "d", "d")
    assert code == 0
    (spike,) = labels_of(log)
    suggested, _ = json.loads(autopilot("label", log, "--suggest", "--json").stdout)
    assert spike == LabelledEvent.model_validate(suggested["event"])


def test_own_events_are_added_and_removed(log: Path) -> None:
    code, _, _ = answer(
        log,
        *("s", "s"),
        *("n", "plateau", "10", "20", "low", "", "", ""),
        *("n", "restart", "5", "5", "medium", "", "", ""),
        *("r", "1"),
        "d",
    )
    assert code == 0
    assert labels_of(log) == (LabelledEvent(kind="restart", onset=5, end=5, confidence="medium"),)


def test_a_wrong_answer_is_asked_for_again(log: Path) -> None:
    code, out, _ = answer(
        log,
        *("x", "s", "d"),
        *(
            "n",
            "spiky",
            "spike",
            "-1",
            "9999",
            "30",
            "20",
            "40",
            "loss",
            "high",
            "halve",
            "",
            "",
            "",
        ),
        "what?",
        "d",
    )
    assert code == 0
    assert "one of a, accept" in out
    assert "a step between 0 and 599" in out
    assert "a step between 30 and 599" in out
    assert "not 'halve'" in out
    (event,) = labels_of(log)
    assert (event.onset, event.end, event.acceptable) == (30, 40, ())


def test_nothing_is_written_before_the_person_is_done(log: Path) -> None:
    code, _, err = answer(log, "a", "", "", "")
    assert code == 2
    assert err == "autopilot: the answers ended before [d]one: nothing was written\n"
    assert sorted(path.name for path in log.parent.iterdir()) == ["log.jsonl"]


def test_labels_from_before_are_kept_and_not_suggested_again(log: Path) -> None:
    before = LabelledEvent(kind="divergence", onset=290, end=380, note="seen by eye")
    path = log.with_name("log.labels.json")
    write_labels(path, Labels(episodes=(before,), note="mine"))
    code, out, _ = answer(log, "a", "", "", "", "d")
    assert code == 0
    assert "1. divergence, steps 290 to 380" in out
    assert "suggestion 1 of 1" in out
    first, second = labels_of(log)
    assert first == before
    assert second.kind == "nan"
    assert read_labels(path).note == "mine"
    code, _, _ = answer(log, "s", "s", "d", more=("--replace",))
    assert code == 0
    assert labels_of(log) == ()


def test_labels_changed_by_somebody_else_meanwhile_are_left_alone(log: Path) -> None:
    path = log.with_name("log.labels.json")
    dialogue = pexpect.spawn(
        AUTOPILOT[0], ["label", str(log)], encoding="utf-8", timeout=PATIENCE, env=environment()
    )
    dialogue.expect("suggestion 1 of 2")
    write_labels(path, Labels(note="theirs"))
    for line in ("d", "d"):
        dialogue.expect(r"\[d\]one")
        dialogue.sendline(line)
    dialogue.expect("changed meanwhile")
    dialogue.expect(pexpect.EOF)
    dialogue.close()
    assert dialogue.exitstatus == 2
    assert read_labels(path).note == "theirs"


def test_a_run_directory_has_its_labels_inside(tmp_path: Path) -> None:
    bench = Bench(OPEN, tmp_path / "run.journal")
    bench.rows(40)
    bench.plane.end("ended", "done")
    bench.plane.close()
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "run.journal").rename(folder / "journal.sqlite")
    code, out, err = answer(folder, "d", more=("--json",))
    assert code == 0
    assert json.loads(out)["path"] == str(folder / "labels.json")
    assert "[d]one" in err
    assert read_labels(folder / "labels.json") == Labels()


@pytest.mark.parametrize("name", ["nowhere.jsonl", "notes.txt"])
def test_what_cannot_be_labelled_is_one_clear_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see\n")
    code, out, err = answer(tmp_path / name)
    assert (code, out) == (2, "")
    assert name in err
    assert err.count("\n") == 1


def series(values: list[float]) -> Series:
    return Series("loss", tuple(range(len(values))), tuple(values), len(values) - 1)


def test_no_single_spike_is_lost_in_the_outline() -> None:
    for at in range(0, 1000, 37):
        values = [2.0 + 0.01 * (step % 7) for step in range(1000)]
        values[at] = 9.0
        shown = series(values)
        bars = outline(shown.values, 56)
        assert len(bars) == 56
        assert bars.index(max(bars)) == mark(shown, 56, at, at).index("^")


def test_a_blow_up_does_not_flatten_the_rest() -> None:
    values = [2.0 + 0.1 * math.sin(step) for step in range(100)]
    bars = outline([*values, 1e10], 56)
    assert max(bars) < 10.0
    assert bars[-1] == max(bars)
