"""A person's question about a run, answered by a model, with every cited figure looked up.

The model reads and nothing else; what it cites is held against the journal, and shown to the person
as found or as not found.
"""

import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from autopilot.errors import BadInput
from autopilot.schema import NoProposalKind, Record, Usage
from autopilot_agents.llm.archive import Archive
from autopilot_agents.llm.archive_view import archive_lookups, as_window, overview
from autopilot_agents.llm.fence import clean, fence, plain_name
from autopilot_agents.llm.figures import Citation, Figures, citations, strange_numbers
from autopilot_agents.llm.line import Line, Subject
from autopilot_agents.llm.lookups import LookUp
from autopilot_agents.llm.outcome import Course
from autopilot_agents.llm.settings import Settings
from autopilot_agents.prompts import load_prompt

LONGEST_QUESTION = 1000
"""Characters."""
_LONGEST_ANSWER = 3000
_SENT_BACK = 1
"""How often wrong figures are sent back; after that they are shown as what they are."""


class Said(BaseModel):
    """What a model says of a question."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str = Field(min_length=1, max_length=_LONGEST_ANSWER)


class Told(Said):
    """Answer the question."""

    figures: list[str] = Field(default=[], max_length=12, description="metric@step=value, each")
    records: list[str] = Field(default=[], max_length=12, description="ids, such as P3 or ep-0002")


class CannotTell(Said):
    """The journal does not say: name what is missing."""


_OFFERED: tuple[type[Said], ...] = (
    create_model("answer", __base__=Told, __doc__=Told.__doc__),
    create_model("cannot_tell", __base__=CannotTell, __doc__=CannotTell.__doc__),
)


class Cited(Record):
    """A figure or a record that an answer names, held against the journal.

    Attributes:
        cited: As the model wrote it.
        metric: Of a figure; None where a record is named.
        checked: The journal has it, as it is cited.
        note: Where it stands, or what stands there instead.
    """

    cited: str
    metric: str | None = None
    step: int | None = None
    value: float | None = Field(default=None, allow_inf_nan=True)
    checked: bool
    note: str


class Answered(Record):
    """What came of a question.

    Attributes:
        outcome: ``answer``, ``cannot_tell``, or why there is none.
        text: The answer, or that reason.
        citations: Every figure and record that it names.
        unknown_numbers: Numbers of its text that stand nowhere in what the model was shown.
    """

    outcome: Literal["answer", "cannot_tell"] | NoProposalKind
    text: str
    citations: tuple[Cited, ...] = ()
    unknown_numbers: tuple[str, ...] = ()
    model: str
    host: str
    prompt: str
    prompt_sha: str
    lookups: int = 0
    usage: Usage = Usage()

    @property
    def answered(self) -> bool:
        """The model said something that can be used."""
        return self.outcome in ("answer", "cannot_tell")


def ask(settings: Settings, archive: Archive, question: str) -> Answered:
    """Ask a model about a run; whatever its server does, this returns.

    Args:
        settings: The model and its terms.
        archive: The run; nothing is written to it.
        question: Of the person; at most 1,000 characters.

    Raises:
        BadInput: The question is empty or too long, or there is no key for a server that needs one.
    """
    words = _words(question)
    settings.key()
    evidence = overview(archive)
    shown = f"{fence(evidence)}\n\nQUESTION\n{words}"
    subject = Subject("ask", load_prompt("ask"), shown, as_window(archive))
    line = Line(settings, time.monotonic)
    obstacle = line.obstacle(subject.window)
    if obstacle is not None:
        return _result(line, subject, obstacle.kind, obstacle.reason)
    seen = [evidence, words]
    reply = line.ask(_putting(settings, archive, subject, seen))
    if reply.answer is None:
        return _result(line, subject, reply.kind or "fault", reply.words, usage=reply.usage)
    said = reply.answer
    return _result(
        line,
        subject,
        "answer" if isinstance(said, Told) else "cannot_tell",
        clean(said.text, _LONGEST_ANSWER),
        citations=tuple(_cited(archive, said)),
        unknown_numbers=tuple(dict.fromkeys(strange_numbers(said.text, "\n".join(seen)))),
        lookups=reply.course.lookups,
        usage=reply.usage,
    )


def _words(question: str) -> str:
    words = clean(question, LONGEST_QUESTION + 1)
    if not 1 <= len(words) <= LONGEST_QUESTION:
        raise BadInput(
            f"question: expected 1 to {LONGEST_QUESTION} visible characters, got {len(question)}"
        )
    return words


def _result(line: Line, subject: Subject, outcome: str, text: str, **more: Any) -> Answered:
    said = line.consultation(subject, outcome, text, usage=more.get("usage", Usage()))
    names = ("outcome", "text", "model", "host", "prompt", "prompt_sha")
    return Answered.model_validate({name: getattr(said, name) for name in names} | more)


def _putting(
    settings: Settings, archive: Archive, subject: Subject, seen: list[str]
) -> Callable[[Course], Coroutine[Any, Any, Said]]:
    """Puts the question; what is looked up for it joins what was seen."""
    system = subject.prompt.render({"lookups": settings.max_lookups})
    lookups = {name: _noted(one, seen) for name, one in archive_lookups(archive).items()}

    def put(course: Course) -> Coroutine[Any, Any, Said]:
        from autopilot_agents.llm import asking  # takes seconds, once, before the deadline runs

        return asking.decide(
            settings,
            system,
            subject.shown,
            offered=_OFFERED,
            lookups=lookups,
            judge=lambda said: _problem(archive, said, course),
            course=course,
        )

    return put


def _noted(lookup: LookUp, seen: list[str]) -> LookUp:
    """The look-up, with its result kept as something that the model was shown."""

    async def look(**arguments: Any) -> str:
        text = await lookup.ask(**arguments)
        seen.append(text)
        return text

    return LookUp(lookup.words, lookup.arguments, look)


def _problem(archive: Archive, said: Said, course: Course) -> str | None:
    """What is wrong with an answer, so that it can be put right."""
    if not isinstance(said, Told):
        return None
    for text in said.figures:
        if len(citations(text)) != 1:
            return f"figures: {clean(text, 60)}: expected one metric@step=value"
    if not (said.figures or said.records or citations(said.text)):
        return "it cites nothing: name the figures, as metric@step=value, or the ids it rests on"
    wrong = [cited.note for cited in _cited(archive, said) if not cited.checked]
    return "; ".join(wrong[:4]) if wrong and course.repairs < _SENT_BACK else None


def _cited(archive: Archive, said: Said) -> Iterator[Cited]:
    """Everything that an answer names, once each, held against the journal."""
    listed = said.figures if isinstance(said, Told) else []
    for figure in dict.fromkeys(citations("; ".join((*listed, said.text)))):
        yield _figure(archive, figure)
    known = archive.ids()
    for name in dict.fromkeys(said.records if isinstance(said, Told) else ()):
        found = name in known
        note = "in the journal" if found else f"{clean(name, 40)}: no record has this id"
        yield Cited(cited=clean(name, 40), checked=found, note=note)


def _figure(archive: Archive, cited: Citation) -> Cited:
    recorded = archive.recorded(cited.metric, cited.step)
    branches = [branch for branch, value in recorded if _agrees(cited, value)]
    if branches:
        note = f"recorded on {', '.join(map(plain_name, dict.fromkeys(branches)))}"
    elif recorded:
        values = ", ".join(f"{value:.5g} on {plain_name(branch)}" for branch, value in recorded)
        note = f"{cited}: the journal has {values}"
    else:
        note = f"{cited}: nothing is recorded of {cited.metric} at step {cited.step}"
    return Cited(
        cited=str(cited),
        metric=cited.metric,
        step=cited.step,
        value=cited.value,
        checked=bool(branches),
        note=note,
    )


def _agrees(cited: Citation, recorded: float) -> bool:
    figures = Figures()
    figures.add(cited.metric, cited.step, recorded)
    return figures.find(cited) is not None
