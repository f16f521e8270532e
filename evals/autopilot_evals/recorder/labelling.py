"""Label a recorded scenario from what is known of it, never from what detectors say.

Known are the scenario's fault and its step, what treats it and what harms, and the course of the
same training, seed for seed, tuned or free of the fault. By that course, and its own before:

- **nan**: a training loss is not finite.
- **divergence**, **spike**: the smoothed loss is a tenth above that of the reference *and* a tenth
  above its own lowest before, for nine rows running; a divergence if it ends that way.
- **overfit**: the held-out loss ends two percent above its best, and the training loss does not.
- **plateau**: the rest of what a fault spans. It is there, and the loss shows it only as what it
  does not gain, or not yet. To be told of it is no false alarm, and nobody has to.
- **spike** of signal ``data_outlier``: all of a training one source of which is bad.
- In a training with nothing wrong: **lr_change** where its plan raises the rate by half at once,
  **spike** of signal ``data_outlier`` where a row is a third above the median of those before.

A rise by less than a twentieth of the first loss is none: near zero everything is a multiple.
"""

from bisect import insort
from collections.abc import Sequence
from itertools import pairwise
from math import inf, isfinite
from statistics import median

from autopilot.schema import FindingKind, Row
from autopilot.schema.metrics import LOSS, LR_PLANNED, VAL_LOSS
from autopilot_evals.labels import EventKind, LabelledEvent, Labels, Signal
from autopilot_evals.recorder.training import Trained
from autopilot_evals.scenarios import Scenario

ABOVE = 1.1
ROWS = 9
SMOOTHED = 25
RISEN = 1.02
OUTLIER = 4 / 3
LEAP = 1.5
LEAST = 0.05
_MEMORY = 30
_APART = 30
_ECHO = 30
_AT_THE_END = 0.1

Course = dict[int, float]
"""Loss by step."""


def label(scenario: Scenario, sick: Trained, reference: Trained) -> Labels:
    """What happened in the sick training, the reference being the same without its fault."""
    if scenario.family == "benign":
        episodes = _of_a_sound_one(sick.rows)
    else:
        first = max(sick.setup.fault_step or 0, 1)
        hurt = _of_a_sick_one(scenario.cause, sick.rows, reference.rows, first)
        episodes = [*_around(hurt, first, sick.rows[-1].step), *hurt]
    known = {
        "acceptable": scenario.acceptable,
        "harmful": scenario.harmful,
        "note": scenario.title,
    }
    where = "" if sick.setup.fault_step is None else f"; from step {sick.setup.fault_step}"
    return Labels(
        episodes=tuple(
            event.model_copy(update=known)
            for event in sorted(episodes, key=lambda event: event.onset)
        ),
        note=f"{scenario.title}{where}. {scenario.summary}",
        split=scenario.split,
    )


def _around(hurt: Sequence[LabelledEvent], first: int, last: int) -> list[LabelledEvent]:
    """What a fault spans before, between and after what it did."""
    events, at = [], first
    for event in hurt:
        if event.onset > at:
            events.append(_event("plateau", at, event.onset - 1))
        at = event.end + 1
    if at <= last:
        events.append(_event("plateau", at, last))
    return events


def _of_a_sick_one(
    cause: FindingKind | None, rows: Sequence[Row], reference: Sequence[Row], first: int
) -> list[LabelledEvent]:
    if cause == "bad_shard":
        return [_event("spike", first, rows[-1].step, signal="data_outlier")]
    losses = _course(rows, LOSS)
    broken = [step for step, loss in losses.items() if not isfinite(loss)]
    if broken:
        return [_event("nan", broken[0], broken[-1])]
    own, sound = _smoothed(losses), _smoothed(_course(reference, LOSS))
    above = {step for step in own if step >= first and own[step] > ABOVE * sound.get(step, inf)}
    lowest, risen, least = inf, set[int](), LEAST * next(iter(losses.values()))
    for step, loss in own.items():
        if step in above and loss > max(ABOVE * lowest, lowest + least):
            risen.add(step)
        lowest = min(lowest, loss)
    spans = _spans(own, risen)
    if spans:
        end = max(own)
        return [
            _event("divergence", *span)
            if span[1] >= end - _AT_THE_END * len(own)
            else _event("spike", *span, signal="loss")
            for span in spans
        ]
    return _overfitted(_course(rows, VAL_LOSS))


def _overfitted(held_out: Course) -> list[LabelledEvent]:
    if not held_out:
        return []
    best, last = min(held_out, key=held_out.__getitem__), max(held_out)
    if held_out[last] <= RISEN * held_out[best]:
        return []
    return [_event("overfit", best, last)]


def _of_a_sound_one(rows: Sequence[Row]) -> list[LabelledEvent]:
    planned = [(row.step, row.values[LR_PLANNED]) for row in rows if LR_PLANNED in row.values]
    fell, restarts = False, list[int]()
    for (_, before), (step, after) in pairwise(planned):
        fell = fell or after < before
        if fell and after > LEAP * before:
            restarts.append(step)
    last = rows[-1].step
    events = [_event("lr_change", step, min(step + _ECHO, last)) for step in restarts]
    losses = _course(rows, LOSS)
    for first, end in _groups(_outliers(losses)):
        if not any(event.onset <= first <= event.end for event in events):
            events.append(_event("spike", first, min(end + _ECHO, last), signal="data_outlier"))
    return sorted(events, key=lambda event: event.onset)


def _outliers(losses: Course) -> list[int]:
    """Steps whose loss is a third above the median of the thirty rows before."""
    recent: list[float] = []
    ordered: list[float] = []
    found = []
    least = LEAST * next(iter(losses.values()))
    for step, loss in losses.items():
        if len(recent) == _MEMORY:
            usual = median(ordered)
            if loss > max(OUTLIER * usual, usual + least):
                found.append(step)
            ordered.remove(recent.pop(0))
        recent.append(loss)
        insort(ordered, loss)
    return found


def _course(rows: Sequence[Row], metric: str) -> Course:
    return {row.step: row.values[metric] for row in rows if metric in row.values}


def _smoothed(losses: Course) -> Course:
    """The median of the rows about each."""
    steps, values = list(losses), list(losses.values())
    half = SMOOTHED // 2
    return {
        step: median(values[max(at - half, 0) : at + half + 1]) for at, step in enumerate(steps)
    }


def _spans(course: Course, marked: set[int]) -> list[tuple[int, int]]:
    """First and last step of each group of marked steps that holds nine of them running."""
    running, longest = 0, dict[int, int]()
    for step in course:
        running = running + 1 if step in marked else 0
        longest[step] = running
    return [
        (first, last)
        for first, last in _groups(sorted(marked))
        if any(longest[step] >= ROWS for step in marked if first <= step <= last)
    ]


def _groups(steps: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of the steps that lie no more than thirty apart."""
    groups: list[tuple[int, int]] = []
    for step in steps:
        if groups and step - groups[-1][1] <= _APART:
            groups[-1] = (groups[-1][0], step)
        else:
            groups.append((step, step))
    return groups


def _event(kind: EventKind, onset: int, end: int, *, signal: Signal | None = None) -> LabelledEvent:
    return LabelledEvent(kind=kind, onset=onset, end=end, signal=signal)
