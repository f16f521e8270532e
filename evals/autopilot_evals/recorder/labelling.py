"""Label a recorded scenario from what is known of it, never from what detectors say.

Known are the scenario's fault and its step, what treats it and what harms, and the course of the
same training, seed for seed, tuned or free of the fault. By that course, and its own before:

- **nan**: a training loss is not finite.
- **divergence**, **spike**: the smoothed loss is a tenth above that of the reference *and* a tenth
  above the lowest before, for nine rows running; a divergence if it ends that way. The lowest is
  that of the higher of both courses: easy data may take the loss below the reference, and to come
  back from there is no rise. Nor is a rise that the reference makes as well: that is the data's.
- **overfit**: the held-out loss ends two percent above its best, and the training loss does not.
- **plateau**: the rest of what a fault spans. It is there, and the loss shows it only as what it
  does not gain, or not yet. To be told of it is no false alarm, and nobody has to.
- **spike** of signal ``data_outlier``: all of a training one source of which is bad.
- In a training with nothing wrong: **lr_change** where its plan raises the rate again once it fell,
  **spike** of signal ``data_outlier`` where its batches were spoilt; nothing else.

A rise is of ``medium`` confidence where the smoothed loss was nowhere a fifth above that of the
reference, an overfit where the held-out loss ends no tenth above its best; all else is of ``high``.
What the scenario's menu offers and its facts neither recommend nor condemn is ``neutral``.

A rise by less than a twentieth of the first loss is none: near zero everything is a multiple.
"""

from collections.abc import Sequence
from math import inf, isfinite
from statistics import median

from autopilot.schema import FindingKind, Proposal, Row
from autopilot.schema.metrics import LOSS, VAL_LOSS
from autopilot_evals.labels import Confidence, EventKind, LabelledEvent, Labels, Signal
from autopilot_evals.recorder.facts import Span, climbs, runs_of, spoilt
from autopilot_evals.recorder.training import Trained
from autopilot_evals.scenarios import Scenario
from autopilot_evals.scoring.decisions import Sets, answer_of, canonical

ABOVE = 1.1
ROWS = 9
SMOOTHED = 25
RISEN = 1.02
SURE = 2.0
"""Margins above the reference that make a label one of high confidence."""
LEAST = 0.05
_APART = 30
_AT_THE_END = 0.1

Course = dict[int, float]
"""Loss by step."""


def label(scenario: Scenario, sick: Trained, reference: Trained) -> Labels:
    """What happened in the sick training, the reference being the same without its fault."""
    if scenario.family == "benign":
        episodes = _of_a_sound_one(sick)
    else:
        first = max(sick.setup.fault_step or 0, 1)
        hurt = _of_a_sick_one(scenario.cause, sick.rows, reference.rows, first)
        episodes = [*_around(hurt, first, sick.rows[-1].step), *hurt]
    known = {**_answers(scenario), "note": scenario.title}
    where = "" if sick.setup.fault_step is None else f"; from step {sick.setup.fault_step}"
    return Labels(
        episodes=tuple(
            event.model_copy(update=known)
            for event in sorted(episodes, key=lambda event: event.onset)
        ),
        note=f"{scenario.title}{where}. {scenario.summary}",
        split=scenario.split,
    )


def _answers(scenario: Scenario) -> dict[str, tuple[str, ...]]:
    """What treats it, what harms and the rest of the menu, in the words that answers get."""
    good = tuple(canonical(set(word.split("+"))) for word in scenario.acceptable)
    bad = tuple(canonical(set(word.split("+"))) for word in scenario.harmful)
    sets = Sets(frozenset(good), frozenset(), frozenset(bad))
    menu = [answer_of(Proposal(interventions=move.interventions)) for move in scenario.moves]
    rest = tuple(dict.fromkeys(word for word in menu if sets.grade(word) == "unlisted"))
    return {"acceptable": good, "neutral": rest, "harmful": bad}


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
    risen = _risen(own, sound, least=LEAST * next(iter(losses.values()))) & above
    spans = _spans(own, risen)
    if spans:
        return [_rise(span, own, sound) for span in spans]
    return _overfitted(_course(rows, VAL_LOSS))


def _risen(own: Course, sound: Course, *, least: float) -> set[int]:
    """Where the loss stands above the lowest before, and the reference's does not."""
    lowest = lowest_sound = inf
    risen = set[int]()
    for step, loss in own.items():
        there = sound.get(step, inf)
        with_it = there > _raised(lowest_sound, least)
        if loss > _raised(lowest, least) and not with_it:
            risen.add(step)
        lowest, lowest_sound = min(lowest, max(loss, there)), min(lowest_sound, there)
    return risen


def _raised(lowest: float, least: float) -> float:
    return max(ABOVE * lowest, lowest + least)


def _rise(span: Span, own: Course, sound: Course) -> LabelledEvent:
    excess = max(own[step] / sound[step] for step in own if span[0] <= step <= span[1])
    sure: Confidence = "high" if excess > 1.0 + SURE * (ABOVE - 1.0) else "medium"
    if span[1] >= max(own) - _AT_THE_END * len(own):
        return _event("divergence", *span, confidence=sure)
    return _event("spike", *span, signal="loss", confidence=sure)


def _overfitted(held_out: Course) -> list[LabelledEvent]:
    if not held_out:
        return []
    best, last = min(held_out, key=held_out.__getitem__), max(held_out)
    worse = held_out[last] / held_out[best]
    if worse <= RISEN:
        return []
    return [_event("overfit", best, last, confidence="high" if worse > ABOVE else "medium")]


def _of_a_sound_one(sound: Trained) -> list[LabelledEvent]:
    last = sound.rows[-1].step
    events = [_event("lr_change", *span) for span in climbs(sound.rows)]
    for span in spoilt(sound.setup.batches, last):
        events.append(_event("spike", *span, signal="data_outlier"))
    return events


def _course(rows: Sequence[Row], metric: str) -> Course:
    return {row.step: row.values[metric] for row in rows if metric in row.values}


def _smoothed(losses: Course) -> Course:
    """The median of the rows about each."""
    steps, values = list(losses), list(losses.values())
    half = SMOOTHED // 2
    return {
        step: median(values[max(at - half, 0) : at + half + 1]) for at, step in enumerate(steps)
    }


def _spans(course: Course, marked: set[int]) -> list[Span]:
    """First and last step of each group of marked steps that holds nine of them running."""
    running, longest = 0, dict[int, int]()
    for step in course:
        running = running + 1 if step in marked else 0
        longest[step] = running
    return [
        (first, last)
        for first, last in runs_of(sorted(marked), _APART)
        if any(longest[step] >= ROWS for step in marked if first <= step <= last)
    ]


def _event(
    kind: EventKind,
    onset: int,
    end: int,
    *,
    signal: Signal | None = None,
    confidence: Confidence = "high",
) -> LabelledEvent:
    return LabelledEvent(kind=kind, onset=onset, end=end, signal=signal, confidence=confidence)
