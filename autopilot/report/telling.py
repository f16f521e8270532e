"""Puts a report into words, once for all formats. Text from the run is cleaned here."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from autopilot.console.words import (
    change_words,
    clean,
    interventions_words,
    number,
    proof_words,
)
from autopilot.report.document import (
    Block,
    Document,
    Entry,
    Errand,
    Facts,
    Grid,
    Paragraph,
    Part,
    Picture,
)
from autopilot.report.model import Action, Effect, ModelCost, Report, Sickness, State, Wish


def tell(report: Report) -> Document:
    """A report in words; parts that would have nothing to say are left out."""
    parts = (
        ("Waits for you", _waiting(report)),
        ("State", _state(report)),
        ("Episodes", (_sickness(sick) for sick in report.episodes)),
        ("What was done", (_action(action, report.state) for action in report.done)),
        ("Wanted, but not done", (_wish(wish) for wish in report.wanted)),
        ("Open questions", _questions(report)),
        ("Steps lost to going back", _goings(report)),
        ("Faults", _faults(report)),
        ("Language models", _cost(report.cost)),
        ("What this report could not see", (Paragraph(clean(r)) for r in report.remarks)),
    )
    told = [Part(title, tuple(blocks)) for title, blocks in parts]
    return Document(
        title=f"{clean(report.name, 200)}, {_when(report.since)} to {_when(report.until)}",
        standing=report.standing,
        headline=clean(report.headline, 500),
        parts=tuple(part for part in told if part.blocks),
    )


def _waiting(report: Report) -> Iterator[Block]:
    for matter in report.waiting:
        command = None if matter.command is None else clean(f"autopilot {matter.command}", 500)
        yield Errand(clean(matter.what, 500), command)


def _state(report: Report) -> Iterator[Block]:
    state = report.state
    of = f" of {state.steps:,}" if state.steps else ""
    why = f": {state.reason}" if state.reason else ""
    lines = [("run", f"{state.status}, step {state.step:,}{of}, branch {state.branch}{why}")]
    pace = ""
    if state.trained > 1 and state.seconds > 0:
        pace = f", {3600 * (state.trained - 1) / state.seconds:,.0f} an hour"
    lines.append(("trained", f"{state.trained:,} steps{pace}"))
    if state.remaining_seconds is not None:
        lines.append(("to go", f"about {_span(state.remaining_seconds)} at that pace"))
    if state.autonomy is not None:
        lines.append(("policy", f"{state.autonomy} ({state.policy_digest})"))
        lines.append(("pilot", state.pilot or "none"))
    if report.reflexes:
        acted = (f"{name} {count} times" for name, count in report.reflexes.items())
        lines.append(("reflexes", ", ".join(acted)))
    yield Facts(_cleaned(lines))
    course = report.course
    if course is None:
        yield Paragraph("No loss was reported in this time.")
        return
    words = f"{course.metric} from {number(course.first)} to {number(course.last)}"
    yield Picture(course, f"{words}, in the order in which steps were made")


def _sickness(sick: Sickness) -> Block:
    episode = sick.episode
    steps = f"steps {episode.onset_step:,} to {episode.last_step:,} of branch {episode.branch}"
    lines = [("diagnosis", f"{episode.diagnosis}, {episode.severity}; {steps}")]
    if episode.reason:
        lines.append(("because", episode.reason))
    lines.append(("outcome", sick.outcome))
    if sick.remedies:
        lines.append(("answered by", ", ".join(sick.remedies)))
    return Entry(clean(f"{episode.id}: {episode.kind}", 300), _cleaned(lines))


def _action(action: Action, state: State) -> Block:
    record, receipt = action.record, action.record.receipt
    assert receipt is not None, "what was done has a receipt"
    what = interventions_words(record.proposal.interventions)
    undoes = f", undoing {record.reverts}" if record.reverts else ""
    title = f"{record.id} by {record.actor} after step {receipt.step:,}{undoes}: {what}"
    lines = [("when", _when(action.at))]
    if record.proposal.rationale:
        lines.append(("why", record.proposal.rationale))
    if record.approval is not None:
        said = f", {record.approval.reason}" if record.approval.reason else ""
        lines.append((record.approval.decision, f"by {record.approval.actor}{said}"))
    else:
        lines.append(("allowed by", record.verdict.rule))
    lines += _under("changed", change_words(receipt))
    lines.append(("proof", proof_words(receipt)))
    if (result := record.canary_result) is not None:
        figures = f"{result.metric} {number(result.value)}, bound {number(result.bound)}"
        step = f"at step {result.step:,}"
        lines.append(("canary", f"{result.result} {step}: {figures}; {result.reason}"))
    elif record.canary is not None and record.status == "applied":
        watch = "still watches" if state.live else "had not decided when the run was over:"
        lines.append(("canary", f"{watch} {record.canary.metric}{_bound(action.effect)}"))
    if action.effect.before is not None:
        lines.append(("effect", _effect(action.effect)))
    why = f": {record.reason}" if record.reason else ""
    lines.append(("now", f"{record.status}{why}"))
    return Entry(clean(title, 500), _cleaned(lines))


def _effect(effect: Effect) -> str:
    before = f"{effect.metric} before {number(effect.before)}"
    after = "not measured" if effect.after is None else number(effect.after)
    return f"{before}, after {after}{_bound(effect)}"


def _bound(effect: Effect) -> str:
    return "" if effect.bound is None else f", bound {number(effect.bound)}"


def _wish(wish: Wish) -> Block:
    record = wish.record
    what = interventions_words(record.proposal.interventions)
    lines = [("when", f"{_when(record.filed_at)}, step {record.filed_step:,}")]
    if record.proposal.rationale:
        lines.append(("wanted because", record.proposal.rationale))
    lines.append(("not done because", wish.why))
    return Entry(
        clean(f"{record.id} {record.status}, by {record.actor}: {what}", 500), _cleaned(lines)
    )


def _questions(report: Report) -> Iterator[Block]:
    for sick in report.episodes:
        if not sick.open_question:
            continue
        said = "no agent has said anything about it"
        if sick.said is not None:
            said = f"the agent's last word ({sick.said.kind}): {sick.said.reason}"
        title = f"{sick.episode.id}: what to do about {sick.episode.kind}?"
        yield Entry(clean(title, 300), _cleaned([("known", said)]))


def _goings(report: Report) -> Iterator[Block]:
    if not report.goings:
        return
    yield Paragraph(f"{report.lost:,} steps in all.")
    yield Grid(
        ("when", "from", "to", "steps lost"),
        tuple(
            (
                _when(going.at),
                clean(f"step {going.from_step:,} of {going.parent}", 200),
                clean(f"step {going.to_step:,}, as {going.branch}", 200),
                f"{going.lost:,}",
            )
            for going in report.goings
        ),
    )


def _faults(report: Report) -> Iterator[Block]:
    if report.faults:
        lines = [("" if f.at is None else _when(f.at), f.text) for f in report.faults]
        yield Facts(_cleaned(lines))


def _cost(cost: tuple[ModelCost, ...]) -> Iterator[Block]:
    if not cost:
        return
    usd, unpriced = sum(one.usd for one in cost), sum(one.unpriced for one in cost)
    asked = sum(one.questions for one in cost)
    total = f"{asked:,} questions, ${usd:.4f} where the price is known"
    yield Paragraph(f"{total}; the price of {unpriced:,} is unknown." if unpriced else f"{total}.")
    yield Grid(
        ("model", "questions", "requests", "tokens in", "tokens out", "price"),
        tuple(
            (
                clean(one.model, 200),
                f"{one.questions:,}",
                f"{one.calls:,}",
                f"{one.input_tokens:,}",
                f"{one.output_tokens:,}",
                _price(one),
            )
            for one in cost
        ),
    )


def _price(one: ModelCost) -> str:
    if one.unpriced == one.questions:
        return "unknown"
    rest = f" and {one.unpriced:,} unknown" if one.unpriced else ""
    return f"${one.usd:.4f}{rest}"


def _under(name: str, values: Iterable[str]) -> list[tuple[str, str]]:
    return [(name if not place else "", value) for place, value in enumerate(values)]


def _cleaned(lines: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, clean(value)) for name, value in lines)


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def _span(seconds: float) -> str:
    """A span of time in its two largest units.

    >>> _span(45), _span(3 * 3600 + 120), _span(50 * 3600)
    ('45 s', '3 h 2 min', '2 d 2 h')
    """
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if hours < 24:
        return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    return f"{hours // 24} d {hours % 24} h"
