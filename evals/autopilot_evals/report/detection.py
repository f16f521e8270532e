"""The report of a detection suite: its tables, and a picture of every event, misses first."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from autopilot_evals.corpus import LabelledRun
from autopilot_evals.report.courses import Mark, read_course
from autopilot_evals.report.episodes import draw_episode
from autopilot_evals.report.excerpts import Excerpt, around_alarm, around_event
from autopilot_evals.report.markup import Html, join, page, section, table, tag
from autopilot_evals.report.words import footer, interval, share, tone
from autopilot_evals.scoring.detection import KindLine, Line
from autopilot_evals.scoring.matching import Alarm, Found
from autopilot_evals.scoring.usage import cost
from autopilot_evals.suites.answers import RunAnswers
from autopilot_evals.suites.detection import (
    OURS,
    TARGET_PER_1000,
    TARGET_RECALL,
    AgentLines,
    DetectionReport,
    RunAlarms,
    verdict,
)

MOST_PICTURES = 200
"""Beyond so many a page no longer opens on a phone; the first of each kind are drawn."""

Fate = Literal["missed", "false alarm", "found", "need not be found"]
_TITLES: dict[Fate, str] = {
    "missed": "Missed",
    "false alarm": "False alarms",
    "found": "Found",
    "need not be found": "Events that need not be found",
}
_WHAT = (
    "Shaded: what a person labelled. Dashed: the alarm that counts. Beneath: what detectors "
    "reported, when an alarm was raised, when an agent was asked to act, and what each agent "
    "proposed with the guard's verdict (in brackets where an earlier one was allowed, so that the "
    "run would not have come here). A cross is a figure that is no number."
)


class _Subject(NamedTuple):
    """What one picture is about; it holds no more of the run than is drawn."""

    fate: Fate
    run: str
    what: Found | Alarm
    excerpt: Excerpt


def detection_page(
    found: DetectionReport,
    corpus: Sequence[LabelledRun],
    read: Sequence[RunAlarms],
    answers: Mapping[str, Sequence[RunAnswers]],
) -> str:
    """The page of a detection suite.

    Args:
        found: Its tables.
        corpus: The labelled runs.
        read: What was raised over each of them, in the same order.
        answers: By agent, what it said to each of them, in the same order.

    Raises:
        BadInput: A recording cannot be read any more.
    """
    subjects = [
        subject
        for at, (run, seen) in enumerate(zip(corpus, read, strict=True))
        for subject in _subjects(run, seen, {name: said[at] for name, said in answers.items()})
    ]
    return page(
        "Detection",
        _headline(found.lines["all"][0]),
        *(
            section(f"{part.replace('_', ' ').capitalize()}: {_size(lines[0])}", _line_table(lines))
            for part, lines in found.lines.items()
        ),
        section("First proposals to act", _agent_table(found.agents)),
        section("By kind of event", _kind_table(found.kinds)),
        tag("p", _WHAT, class_="faint"),
        *_galleries(subjects),
        footer(),
    )


def _headline(line: Line) -> Html:
    reached = verdict(line)
    return tag(
        "p",
        f"{line.found:g} of {line.events} events found (recall {share(line.recall)}, 95 % "
        f"{interval(line.recall_95)}), {line.false_alarms:g} false alarms in {line.healthy_rows:,} "
        f"healthy rows, which stand for {line.healthy_steps:,} steps. ",
        tone(reached, "Target reached" if reached else "Target missed"),
        f": recall {TARGET_RECALL}, {TARGET_PER_1000} false alarms in 1,000 healthy steps.",
    )


def _size(line: Line) -> str:
    return f"{line.events} events in {line.runs} runs"


def _line_table(lines: Sequence[Line]) -> Html:
    head = ("rule", "found", "recall", "95 %", "precision", "delay", "false", "/1,000 steps",
            "/1,000 rows")  # fmt: skip
    return table(
        head,
        [
            (
                line.rule,
                f"{line.found:g}",
                share(line.recall),
                interval(line.recall_95),
                share(line.precision),
                _rows(line.delay_rows),
                f"{line.false_alarms:,.0f}",
                share(line.per_1000_steps, 4),
                share(line.per_1000_rows, 3),
            )
            for line in lines
        ],
    )


def _agent_table(agents: Sequence[AgentLines]) -> Html:
    """Each agent's line, what it did not answer, and what asking took."""
    return table(
        (
            "agent",
            "model",
            "recall",
            "delay",
            "false",
            "proposals",
            "no proposal",
            "seconds",
            "cost",
        ),
        [
            (
                one.card.name,
                one.card.model or "-",
                share(one.lines["all"].recall),
                _rows(one.lines["all"].delay_rows),
                f"{one.lines['all'].false_alarms:,.0f}",
                str(one.proposals),
                ", ".join(f"{count} {kind}" for kind, count in one.silences.items()) or "-",
                "-" if one.spent is None else f"{one.spent.seconds:,.0f}",
                cost(one.spent, one.asked),
            )
            for one in agents
        ],
    )


def _rows(delay: float | None) -> str:
    return "-" if delay is None else f"{delay:g} rows"


def _kind_table(kinds: Sequence[KindLine]) -> Html:
    return table(
        ("kind", "must be found", "events", "noticed", "delay"),
        [
            (
                kind.kind,
                "yes" if kind.needed else "no",
                str(kind.events),
                f"{kind.noticed:g}",
                _rows(kind.delay_rows),
            )
            for kind in kinds
        ],
    )


def _subjects(
    run: LabelledRun, seen: RunAlarms, answers: Mapping[str, RunAnswers]
) -> Iterator[_Subject]:
    labelled = any(event.kind != "healthy" for event in run.labels.episodes)
    if not seen.steps or not (labelled or seen.alarms[OURS]):
        return
    course = read_course(run, seen, answers)
    matching = course.matching
    for one in matching.found:
        fate: Fate = "missed" if one.alarm is None else "found"
        yield _Subject(fate, run.name, one, around_event(course, one))
    for one in matching.others:
        yield _Subject("need not be found", run.name, one, around_event(course, one))
    for alarm in matching.false:
        yield _Subject("false alarm", run.name, alarm, around_alarm(course, alarm))


def _galleries(subjects: Sequence[_Subject]) -> Iterator[Html]:
    number = 0
    for fate, title in _TITLES.items():
        own = [subject for subject in subjects if subject.fate == fate]
        drawn = own[: MOST_PICTURES - number]
        pictures = [_figure(subject, number + at) for at, subject in enumerate(drawn)]
        number += len(drawn)
        left = len(own) - len(drawn)
        more = tag("p", f"{left} more are not drawn.") if left else Html("")
        inside = join(tag("div", *pictures, class_="pictures"), more)
        if fate in ("missed", "false alarm"):
            yield section(f"{title}: {len(own)}", inside if own else tag("p", "None."))
        elif own:
            yield tag("details", tag("summary", f"{title}: {len(own)}"), inside, open="")


def _figure(subject: _Subject, number: int) -> Html:
    what = subject.what
    if isinstance(what, Alarm):
        title = f"{what.kind} at step {what.step:,}"
    else:
        title = f"{what.event.row_name}, steps {what.event.onset:,} to {what.event.end:,}"
    words = f"{subject.fate}: {title}, {subject.run}"
    return tag(
        "figure",
        draw_episode(subject.excerpt, f"picture-{number}", words),
        tag("figcaption", *_caption(subject, title)),
    )


def _caption(subject: _Subject, title: str) -> Iterator[Html]:
    good = subject.fate in ("found", "need not be found")
    yield tag("p", tone(good, subject.fate), f" {title}{_delay(subject.what)}")
    yield tag("p", subject.run, class_="faint")
    if isinstance(subject.what, Found) and subject.what.event.note:
        event = subject.what.event
        yield tag("p", f"Labelled with {event.confidence} confidence: {event.note}")
    for lane, marks in subject.excerpt.lanes.items():
        if lane != "finding" and marks:
            said = "; ".join(_said(subject.excerpt, mark) for mark in marks)
            yield tag("p", f"{lane}: {said}")


def _delay(what: Found | Alarm) -> str:
    if isinstance(what, Alarm) or what.delay_rows is None:
        return ""
    return f", noticed after {what.delay_rows} rows, {what.delay_steps:,} steps"


def _said(excerpt: Excerpt, mark: Mark) -> str:
    return f"{mark.text or 'raised'} at {excerpt.steps[mark.row - excerpt.first]:,}"
