"""A person's own past runs: where they lie, and what is known of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autopilot.errors import BadInput
from autopilot.recording import RecordedRun, is_run, read_run
from autopilot_evals.corpus import read_corpus
from autopilot_evals.importers import guess_format, open_recording
from autopilot_evals.labels import Labels, labels_path, read_labels

_INDEX = "index.csv"
_SUFFIXES = frozenset({".jsonl", ".csv", ".json", ".wandb"})


@dataclass(frozen=True)
class PastRun:
    """One recording, and what is known of what happened in it.

    Attributes:
        labels: What happened in it; None where nobody said.
        declared: It was declared healthy on the command line, not by labels.
        named: It was named itself, and not found in a folder.
    """

    name: str
    path: Path
    labels: Labels | None
    declared: bool = False
    named: bool = True

    def open(self) -> RecordedRun:
        """Open the recording.

        Raises:
            BadInput: It cannot be read.
        """
        return read_run(self.path) if is_run(self.path) else open_recording(self.path)


def find_runs(places: Sequence[Path], healthy: Sequence[Path] = ()) -> tuple[PastRun, ...]:
    """Every recording that the places hold, with the labels beside it or in its folder's index.

    Args:
        places: Run directories, recordings of other programs, folders of either, or corpora.
        healthy: Places whose runs are declared healthy; they need not be among ``places``.

    Raises:
        BadInput: A place is missing or holds nothing, labels are not what they should be, or they
            say that a run declared healthy was not.
    """
    found: dict[Path, PastRun] = {}
    for place in (*places, *healthy):
        for run in _runs_of(place):
            found.setdefault(run.path.resolve(), run)
    for place in healthy:
        for run in _runs_of(place):
            at = run.path.resolve()
            found[at] = _declared(found[at])
    return _with_own_names(found.values())


def _declared(run: PastRun) -> PastRun:
    hurt = [event for event in (run.labels or Labels()).episodes if event.loss_affecting]
    if hurt:
        raise BadInput(
            f"--healthy {run.path}: its labels say {hurt[0].kind} at step {hurt[0].onset}; "
            "leave it out of --healthy, or correct the labels"
        )
    return run if run.labels is not None else replace(run, labels=Labels(), declared=True)


def _runs_of(place: Path) -> list[PastRun]:
    if not place.exists():
        raise BadInput(f"{place}: no such run, file or folder")
    if _is_recording(place):
        return [PastRun(_name(place), place, _labels_of(place))]
    if (place / _INDEX).exists():
        return [PastRun(r.name, r.path, r.labels, named=False) for r in read_corpus(place)]
    inside = [path for path in sorted(place.iterdir()) if _may_be_recording(path)]
    if not inside:
        raise BadInput(
            f"{place}: holds no recorded run; expected run directories, or files that "
            "`autopilot import` can read"
        )
    return [PastRun(_name(path), path, _labels_of(path), named=False) for path in inside]


def _is_recording(place: Path) -> bool:
    if place.is_file() or is_run(place):
        return True
    if any(path.is_dir() and is_run(path) for path in place.iterdir()):
        return False
    return not (place / _INDEX).exists() and _guessed(place)


def _may_be_recording(path: Path) -> bool:
    if path.name.startswith(".") or path.name.endswith("labels.json"):
        return False
    if path.is_dir():
        return is_run(path) or _guessed(path)
    return path.suffix in _SUFFIXES or "tfevents" in path.name


def _guessed(folder: Path) -> bool:
    """Whether the folder itself is one run; event files further down may be of many."""
    try:
        format = guess_format(folder)
    except BadInput:
        return False
    return format != "tensorboard" or next(folder.glob("*tfevents*"), None) is not None


def _labels_of(recording: Path) -> Labels | None:
    if recording.is_file() and (recording.parent / _INDEX).exists():
        indexed = (run for run in read_corpus(recording.parent) if run.path.name == recording.name)
        run = next(indexed, None)
        if run is not None:
            return run.labels
    beside = labels_path(recording)
    return read_labels(beside) if beside.exists() else None


def _name(path: Path) -> str:
    return path.resolve().name


def _with_own_names(runs: Iterable[PastRun]) -> tuple[PastRun, ...]:
    """Runs of one name are told apart by the folder that they lie in."""
    runs = tuple(runs)
    often = Counter(run.name for run in runs)
    return tuple(
        run
        if often[run.name] == 1
        else replace(run, name=f"{run.path.resolve().parent.name}/{run.name}")
        for run in runs
    )
