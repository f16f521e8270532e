"""``autopilot label``: a person says what happened in a recorded run; the detectors suggest."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import typer
from rich.console import Console
from rich.text import Text

from autopilot.cli.output import Json, console, print_json
from autopilot.errors import BadInput

if TYPE_CHECKING:
    from autopilot_evals.labels import LabelledEvent, Labels
    from autopilot_evals.suggestions import Series, Suggestion

_T = TypeVar("_T")
_WIDTH = 56
_CLOSE = 28
"""Readings on each side of an event in its close-up."""
_ANSWERS = frozenset({"nothing", "ask", "fault", "raise_lr"})
"""What can be answered to an event besides the kinds of intervention."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(label)


def label(
    recording: Annotated[
        Path,
        typer.Argument(metavar="RECORDING", help="A run directory, or a log of another program."),
    ],
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Print the suggestions, and ask nothing.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Begin anew where there are labels already.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what happened in a recorded run, for eval and scorecard: spikes, divergences, nothing.

    Shows the run, suggests what its detectors found, and asks. Labels are written beside the
    recording at the end, all at once; labels from before are kept, unless --replace.

    autopilot label runs/a

    autopilot label log.jsonl --suggest --json
    """
    from autopilot.recording import is_run
    from autopilot_evals.importers import open_recording
    from autopilot_evals.suggestions import read_series
    from autopilot_evals.suggestions import suggest as suggest_events

    if recording.is_file() and is_run(recording):
        recording = recording.parent
    recorded = open_recording(recording)
    series = read_series(recorded)
    if series is None:
        raise BadInput(f"{recording}: holds no figures to label")
    suggestions = suggest_events(recorded)
    if suggest:
        _print_suggestions(suggestions, json)
        return
    _label(recording, series, suggestions, replace=replace, json=json)


def _label(
    recording: Path,
    series: "Series",
    suggestions: "Sequence[Suggestion]",
    *,
    replace: bool,
    json: bool,
) -> None:
    from autopilot_evals.labels import Labels, labels_path, read_labels

    path = labels_path(recording)
    before = path.read_bytes() if path.exists() else None
    if not os.access(path.parent, os.W_OK):
        raise BadInput(f"{path}: cannot be written; copy the recording to a folder of your own")
    known = Labels() if before is None or replace else read_labels(path)
    asking = _Dialogue(series, known, Console(stderr=True, highlight=False) if json else console)
    labels = asking.run(suggestions)
    _write(path, labels, before)
    if json:
        print_json({"path": str(path), "labels": labels})
        return
    count = len(labels.episodes)
    what = f"{count} labelled" if count else "nothing labelled: it counts as a healthy run"
    console.print(f"{path}: {what}", markup=False, soft_wrap=True)


def _print_suggestions(suggestions: "Sequence[Suggestion]", json: bool) -> None:
    if json:
        print_json([{"event": s.event.model_dump(mode="json"), "why": s.why} for s in suggestions])
        return
    for suggestion in suggestions:
        console.print(_said(suggestion), soft_wrap=True)
    if not suggestions:
        console.print("the detectors found nothing")


def _write(path: Path, labels: "Labels", before: bytes | None) -> None:
    """All or nothing, and not over what somebody else wrote meanwhile."""
    from autopilot_evals.labels import write_labels

    if (path.read_bytes() if path.exists() else None) != before:
        raise BadInput(f"{path}: was changed meanwhile, and is left as it is; label again")
    partial = path.with_name(f".{path.name}.new")
    try:
        write_labels(partial, labels)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}") from error


class _Dialogue:
    """Asks a person; one line is read an answer.

    Args:
        series: What is shown of the run.
        known: Labels from before.
        out: Where questions are printed.
    """

    def __init__(self, series: "Series", known: "Labels", out: Console) -> None:
        self._series = series
        self._note = known.note
        self._events = list(known.episodes)
        self._out = out

    def run(self, suggestions: "Sequence[Suggestion]") -> "Labels":
        """Go through the suggestions, then take what else there is.

        Raises:
            BadInput: The answers ended before the person was done.
        """
        from autopilot_evals.labels import Labels

        series = self._series
        self._out.print(f"{series.metric}, steps {series.steps[0]} to {series.last_step}")
        self._show(None)
        self._list()
        self._go_through([s for s in suggestions if not self._is_known(s)])
        while (answer := self._ask("[n]ew, [r]emove, [d]one")) not in ("d", "done"):
            if answer in ("n", "new"):
                self._add(self._change(None))
            elif answer in ("r", "remove"):
                self._remove()
            else:
                self._complain("a letter: n, r or d")
        return Labels(
            episodes=tuple(sorted(self._events, key=lambda event: event.onset)), note=self._note
        )

    def _is_known(self, suggestion: "Suggestion") -> bool:
        """Whether labels from before have something there already."""
        new = suggestion.event
        return any(old.onset <= new.end and new.onset <= old.end for old in self._events)

    def _go_through(self, suggestions: "Sequence[Suggestion]") -> None:
        if not suggestions:
            self._out.print("the detectors suggest nothing" + " more" * bool(self._events))
        for number, suggestion in enumerate(suggestions, 1):
            self._out.print(Text(f"\nsuggestion {number} of {len(suggestions)}", style="bold"))
            self._show(suggestion.event)
            self._out.print(_said(suggestion), soft_wrap=True)
            choices = ("a", "accept", "c", "change", "s", "skip", "d", "done")
            answer = self._one_of("[a]ccept, [c]hange, [s]kip, [d]one with suggestions", choices)
            if answer[0] == "d":
                return
            if answer[0] == "c":
                self._add(self._change(suggestion.event))
            elif answer[0] == "a":
                self._add(suggestion.event)

    def _add(self, event: "LabelledEvent") -> None:
        """Ask what would have been right, and keep the event."""
        from autopilot_evals.labels import LabelledEvent

        said = {
            name: self._answers(f"{name}, such as {such} (blank: unsaid)")
            for name, such in (
                ("acceptable", "rollback+skip_batches, nothing"),
                ("neutral", "evaluate"),
                ("harmful", "scale_lr"),
            )
        }
        self._events.append(LabelledEvent.model_validate({**event.model_dump(), **said}))

    def _change(self, event: "LabelledEvent | None") -> "LabelledEvent":
        from autopilot_evals.labels import Confidence, EventKind, LabelledEvent, Signal

        last = self._series.last_step
        kind = self._one_of("kind", get_args(EventKind), event.kind if event else None)
        onset = self._step("onset, its first step", 0, event.onset if event else None)
        end = event.end if event and event.end >= onset else None
        end = self._step(f"end, its last step (the run's is {last})", onset, end)
        signal = None
        if kind == "spike":
            signal = self._one_of(
                "where it shows", get_args(Signal), (event.signal if event else None) or "loss"
            )
        sure = self._one_of("confidence", get_args(Confidence), event.confidence if event else None)
        return LabelledEvent.model_validate(
            {"kind": kind, "onset": onset, "end": end, "signal": signal, "confidence": sure}
        )

    def _remove(self) -> None:
        self._list()
        if self._events:
            numbers = [str(number) for number in range(1, len(self._events) + 1)]
            del self._events[int(self._one_of("which", numbers)) - 1]

    # --- shown ----------------------------------------------------------------------------------

    def _list(self) -> None:
        for number, event in enumerate(self._events, 1):
            self._out.print(f"  {number}. {_words(event)}", markup=False, soft_wrap=True)

    def _show(self, event: "LabelledEvent | None") -> None:
        """The run as bars; with the event marked, and once more from nearby."""
        from autopilot.console.words import sparkline
        from autopilot_evals.suggestions import Series, mark, outline

        series = self._series
        self._out.print(f"  {sparkline(outline(series.values, _WIDTH), _WIDTH)}")
        if event is None:
            return
        self._out.print(f"  {mark(series, _WIDTH, event.onset, event.end)}")
        within = [n for n, s in enumerate(series.steps) if event.onset <= s <= event.end]
        if not within:
            return
        near = slice(max(within[0] - _CLOSE, 0), within[-1] + _CLOSE)
        close = Series(series.metric, series.steps[near], series.values[near], series.last_step)
        if len(close.values) < len(series.values):
            bars = sparkline(outline(close.values, _WIDTH), _WIDTH)
            self._out.print(f"  {bars}  steps {close.steps[0]} to {close.steps[-1]}")
            self._out.print(f"  {mark(close, _WIDTH, event.onset, event.end)}")

    # --- asked ----------------------------------------------------------------------------------

    def _ask(self, question: str) -> str:
        self._out.print(Text(f"{question}: "), end="")
        line = sys.stdin.readline()
        if not line:
            raise BadInput("the answers ended before [d]one: nothing was written")
        return line.strip()

    def _until(self, question: str, read: Callable[[str], _T]) -> _T:
        while True:
            try:
                return read(self._ask(question))
            except ValueError as error:
                self._complain(str(error))

    def _complain(self, expected: str) -> None:
        self._out.print(Text(f"  expected {expected}", style="red"))

    def _one_of(self, question: str, choices: Sequence[str], default: str | None = None) -> str:
        def read(text: str) -> str:
            text = text or default or ""
            if text not in choices:
                raise ValueError(f"one of {', '.join(choices)}")
            return text

        return self._until(question + (f" [{default}]" if default else ""), read)

    def _step(self, question: str, least: int, default: int | None) -> int:
        def read(text: str) -> int:
            step = default if not text else int(text) if text.isdecimal() else None
            if step is None or not least <= step <= self._series.last_step:
                raise ValueError(f"a step between {least} and {self._series.last_step}")
            return step

        return self._until(question + (f" [{default}]" if default is not None else ""), read)

    def _answers(self, question: str) -> tuple[str, ...]:
        return self._until(question, read_answers)


def read_answers(text: str) -> tuple[str, ...]:
    """Answers to an event, as labels name them: kinds of intervention, several in one with ``+``.

    Raises:
        ValueError: One of them is none.

    >>> read_answers("skip_batches + rollback, nothing")
    ('rollback+skip_batches', 'nothing')
    """
    from autopilot.schema import INTERVENTION_TYPES

    found = []
    for answer in filter(None, (part.strip() for part in text.split(","))):
        kinds = {kind.strip() for kind in answer.split("+")}
        unknown = sorted(kinds - set(INTERVENTION_TYPES) - _ANSWERS)
        if unknown:
            known = ", ".join(sorted(set(INTERVENTION_TYPES) | _ANSWERS))
            raise ValueError(f"kinds of intervention, and not {unknown[0]!r}; known: {known}")
        found.append("+".join(sorted(kinds)))
    return tuple(found)


def _said(suggestion: "Suggestion") -> Text:
    from autopilot.console.words import clean

    return Text(_words(suggestion.event)) + Text(f"  {clean(suggestion.why)}", style="dim")


def _words(event: "LabelledEvent") -> str:
    judged = (
        ("acceptable", event.acceptable),
        ("neutral", event.neutral),
        ("harmful", event.harmful),
    )
    said = "".join(f"; {name}: {', '.join(answers)}" for name, answers in judged if answers)
    where = f"{event.row_name}, steps {event.onset} to {event.end}"
    return f"{where}, {event.confidence} confidence{said}"
