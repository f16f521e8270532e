"""Explanations for people: of a proposal that waits, and of a whole run."""

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from autopilot.policy import Policy
from autopilot.schema import Consultation, ProposalRecord, Usage, Window
from autopilot_agents.llm.fence import clean, fence, figure, plain_name
from autopilot_agents.llm.figures import Citation, Figures, citations, figures_of, strange_numbers
from autopilot_agents.llm.guidance import with_guidance
from autopilot_agents.llm.line import Line, Subject
from autopilot_agents.llm.outcome import Course
from autopilot_agents.llm.redaction import without_keys
from autopilot_agents.llm.session import recorded_session
from autopilot_agents.llm.tape import Tape
from autopilot_agents.llm.view import history_line, window_text
from autopilot_agents.prompts import load_prompt

_REVIEW_WORDS, _REPORT_WORDS = 120, 250
_STORY_LINES = 200


def review(line: Line, policy: Policy, record: ProposalRecord, window: Window) -> Consultation:
    """Explain a proposal to the person who is to decide; never raises."""
    figures = figures_of(window)
    shown = f"{window_text(window, policy)}\n\n{_proposal_text(record, figures)}"
    for cited in record.proposal.evidence:
        figures.add(cited.metric, cited.step, cited.value)
    prompt = load_prompt("review")
    told = with_guidance(window.run.guidance, fence(shown))
    subject = Subject("review", prompt, told, window, record.id[:100])
    return _told(line, subject, figures, _REVIEW_WORDS)


def report(line: Line, story: Sequence[str], window: Window) -> Consultation:
    """Tell what happened in a run, from the lines of its story; never raises."""
    figures = figures_of(window)
    lines = [clean(text) for text in story[-_STORY_LINES:]]
    for cited in citations("\n".join(lines)):
        figures.add(cited.metric, cited.step, cited.value)
    subject = Subject("report", load_prompt("report"), fence("\n".join(lines)), window)
    return _told(line, subject, figures, _REPORT_WORDS)


def _told(line: Line, subject: Subject, figures: Figures, words: int) -> Consultation:
    obstacle = line.obstacle(subject.window)
    if obstacle is not None:  # no model was asked, so nothing is remembered
        return line.consultation(subject, obstacle.kind, obstacle.reason, usage=Usage())
    system = subject.prompt.render({"words": words})

    def check(text: str) -> str | None:
        for wrong in figures.unknown(text):
            return figures.problem(wrong)
        strange = strange_numbers(text, subject.shown)
        return f"{', '.join(strange[:3])} stands nowhere in the facts" if strange else None

    tape = Tape(partial(without_keys, settings=line.settings))

    def ask(course: Course) -> Coroutine[Any, Any, str]:
        from autopilot_agents.llm import asking

        return asking.explain(
            line.settings, system, subject.shown, check=check, course=course, tape=tape
        )

    reply = line.ask(ask)
    session = recorded_session(tape, line.settings)
    if reply.answer is None:
        told = line.consultation(
            subject, reply.kind or "fault", reply.words, usage=reply.usage, session=session
        )
    else:
        text = clean(reply.answer, 3900)
        unverified = len(figures.unknown(text)) + len(strange_numbers(text, subject.shown))
        told = line.consultation(
            subject,
            subject.purpose,
            text,
            unverified=unverified,
            usage=reply.usage,
            session=session,
        )
    return line.remember(told)


def _proposal_text(record: ProposalRecord, figures: Figures) -> str:
    """The proposal under review; figures that the window contradicts are marked."""
    proposal = record.proposal
    cited = [
        f"{plain_name(e.metric)}@{e.step}={figure(e.value)}"
        + _contradiction(figures, Citation(plain_name(e.metric), e.step, e.value))
        for e in proposal.evidence
    ]
    canary = record.canary or proposal.canary
    lines = [
        f"PROPOSAL {history_line(record, proposal.episode)}",
        f"verdict: {record.verdict.decision}, {clean(record.verdict.reason)}",
        f"its rationale: “{clean(proposal.rationale, 800)}”",
        f"its evidence: {'; '.join(cited) or 'none'}",
        f"it expects: “{clean(proposal.expected_effect)}”",
    ]
    if canary is not None:
        lines.append(f"taken back unless, after {canary.steps} steps, {plain_name(canary.metric)} "
                     f"is at most {figure(canary.bound)}")  # fmt: skip
    return "\n".join(lines)


def _contradiction(figures: Figures, cited: Citation) -> str:
    known = figures.recorded(cited.metric, cited.step)
    if known is None or figures.find(cited) is not None:
        return ""
    return f" CONTRADICTED: the window has {figure(known)}"
