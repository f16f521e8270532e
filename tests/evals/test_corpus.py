"""A corpus is read by its path, and says what is wrong with it in one line."""

import json
from pathlib import Path

import pytest

from autopilot.errors import BadInput
from autopilot_evals.corpus import read_corpus, split_of
from autopilot_evals.labels import LabelledEvent, Labels, read_labels, write_labels

HEAD = "file,source_repo,kind,label_confidence,events_json,note\n"
EVENTS = '[{""start_step"": 3, ""end_step"": 5, ""kind"": ""spike"", ""note"": ""up""}]'


def recording(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"step": s, "loss": 2.0}) + "\n" for s in range(9)))
    return path


def indexed(folder: Path, events: str = EVENTS, name: str = "a.jsonl") -> Path:
    recording(folder, "a.jsonl")
    (folder / "index.csv").write_text(f'{HEAD}{name},me/mine,llm,medium,"{events}",cut\n')
    return folder


def test_an_index_reads_as_a_corpus(tmp_path: Path) -> None:
    (run,) = read_corpus(indexed(tmp_path))
    (event,) = run.labels.episodes
    assert (run.name, run.group, run.labels.note) == ("a.jsonl", "me/mine:llm", "cut")
    assert (event.kind, event.signal, event.confidence) == ("spike", "loss", "medium")
    assert event.loss_affecting
    assert [row.step for row in run.open().rows()] == list(range(9))


def test_label_files_beside_recordings_read_as_a_corpus(tmp_path: Path) -> None:
    labels = Labels(episodes=(LabelledEvent(kind="nan", onset=4, end=8, harmful=("nothing",)),))
    recording(tmp_path, "b.jsonl")
    write_labels(tmp_path / "b.labels.json", labels)
    (tmp_path / "run").mkdir()
    write_labels(tmp_path / "run" / "labels.json", Labels())
    first, second = read_corpus(tmp_path)
    assert (first.name, first.labels) == ("b.jsonl", labels)
    assert (second.name, second.path) == ("run", tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "signal", "expected"),
    [
        ("spike", "loss", True),
        ("spike", "grad_norm_only", False),
        ("spike", "data_outlier", False),
        ("spike", "reward", False),
        ("divergence", None, True),
        ("nan", None, True),
        ("collapse", None, True),
        ("plateau", None, False),
        ("restart", None, False),
    ],
)
def test_which_events_must_be_found(kind: str, signal: str | None, expected: bool) -> None:
    given = {"kind": kind, "signal": signal, "onset": 1, "end": 1}
    assert LabelledEvent.model_validate(given).loss_affecting is expected


def test_the_split_keeps_a_group_on_one_side_and_does_not_hang_on_the_others() -> None:
    groups = [f"somebody/repository{i}:llm" for i in range(200)]
    sides = [split_of(group) for group in groups]
    assert sides == [split_of(group) for group in groups]
    assert 60 < sides.count("development") < 140


@pytest.mark.parametrize(
    ("events", "name", "complaint"),
    [
        (EVENTS, "b.jsonl", "b.jsonl"),
        ("no list", "a.jsonl", "events_json"),
        (EVENTS.replace("3", "7"), "a.jsonl", "end 5 lies before onset 7"),
        (EVENTS.replace("spike", "hiccup"), "a.jsonl", "kind"),
    ],
)
def test_a_broken_index_is_one_clear_line(
    tmp_path: Path, events: str, name: str, complaint: str
) -> None:
    with pytest.raises(BadInput, match=complaint) as raised:
        read_corpus(indexed(tmp_path, events, name))
    assert "line 2" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["{", '{"episodes": [{"kind": "nan"}]}', '{"episodes": [], "episode": 1}']
)
def test_a_broken_label_file_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(BadInput) as raised:
        read_labels(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_labels_is_no_corpus(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadInput, match=str(folder)):
            read_corpus(folder)
    write_labels(tmp_path / "gone.labels.json", Labels())
    with pytest.raises(BadInput, match="labels no recording"):
        read_corpus(tmp_path)
