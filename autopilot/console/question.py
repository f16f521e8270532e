"""What a person is shown to decide about a proposal: on half a screen, or one fact a line."""

import time
from collections.abc import Sequence
from itertools import accumulate

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autopilot.console.differences import differences, undo_words
from autopilot.console.facts import Fact, Look, course, facts_view
from autopilot.console.words import clean, interventions_words, number
from autopilot.guard import changes_course
from autopilot.policy import Policy
from autopilot.schema import Canary, Consultation, ProposalRecord, TableRow, Window, metrics

_COLUMN = 8
"""Columns that a figure takes at most."""
_SHORT_OF_TIME = 120.0


def question_view(
    record: ProposalRecord, window: Window, policy: Policy, look: Look, width: int
) -> RenderableType:
    """What a person needs to decide.

    Args:
        record: What waits.
        window: What was seen when it was proposed.
        policy: That of the run: it says how the proposal is tested, and what becomes of it when
            nobody answers.
        look: How to show it.
        width: Columns of the terminal.
    """
    name = metrics.LOSS
    losses = [(row.last_step, row.values[name]) for row in window.table if name in row.values]
    facts = [("loss", course(losses, look, width)), *_facts(record, window, policy)]
    asked = " waits for your answer" if look == "plain" else ""
    return facts_view(f"{record.id} by {record.actor}{asked}", facts, look)


def advice_view(review: Consultation, look: Look) -> RenderableType:
    """What a model has to say of a proposal; its figures were checked by code."""
    text = Text(clean(review.text) or f"no answer: {review.outcome}")
    if review.unverified:
        words = f"\n{review.unverified} of the figures in it were NOT found in the run's journal"
        text.append(words, style="bold red")
    title = f"{clean(review.model, 80)} on {review.proposal}"
    if look == "plain":
        return Group(Text(f"{title}:"), text)
    return Panel(text, title=title, title_align="left")


def details_view(window: Window, look: Look, width: int) -> RenderableType:
    """The window's last rows, for a closer look: as many metrics as fit so many columns."""
    rows = window.table[-14:]
    names = _that_fit([s.metric for s in window.summaries], width)
    if look == "plain":
        return Group(*(Text(f"step {_span(row)}: {_figures(row, names)}") for row in rows))
    table = Table("step", *names, box=None)
    for row in rows:
        figures = (number(row.values[name]) if name in row.values else "" for name in names)
        table.add_row(_span(row), *figures)
    return table


def _that_fit(names: Sequence[str], width: int) -> Sequence[str]:
    """The first of them; a column is as wide as its name or a figure, and two for space."""
    ends = list(accumulate((max(len(name), _COLUMN) + 2 for name in names), initial=_COLUMN + 2))
    return names[: max(1, sum(end <= width for end in ends) - 1)]


def _span(row: TableRow) -> str:
    if row.first_step == row.last_step:
        return str(row.last_step)
    return f"{row.first_step}-{row.last_step}"


def _figures(row: TableRow, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {number(row.values[name])}" for name in names if name in row.values)


def _facts(record: ProposalRecord, window: Window, policy: Policy) -> list[Fact]:
    """In the order in which a person asks: what is wrong, what to do, what if not."""
    proposal, episode = record.proposal, window.episode
    facts = []
    if episode is not None:
        facts.append(("seen", f"{episode.kind}, {episode.diagnosis}: {episode.reason}"))
        if episode.status == "closed":
            facts.append(("since then", "it has passed; the run may need nothing any more"))
    facts += [
        ("figure", f"{cited.metric} = {number(cited.value)} at step {cited.step}")
        for cited in proposal.evidence[:4]
    ]
    facts.append(("proposed", interventions_words(proposal.interventions)))
    facts += [("change", line) for line in differences(proposal.interventions, window)]
    facts.append(("why", proposal.rationale))
    if proposal.expected_effect:
        facts.append(("expected", proposal.expected_effect))
    facts.append(("asks because", record.verdict.reason))
    facts.append(("canary", _canary_words(record, policy)))
    facts.append(("undo", undo_words(proposal.interventions)))
    facts += _waiting(record, window, policy)
    return [(label, words) for label, words in facts if words]


def _canary_words(record: ProposalRecord, policy: Policy) -> str:
    if not changes_course(record.proposal.interventions):
        return ""
    given = record.proposal.canary
    if given is None and policy.canary.revert_if == "never":
        return "none: the policy never takes an intervention back"
    canary = given or Canary(steps=policy.canary.steps)
    bound = (
        f"exceeds {number(canary.bound)}"
        if canary.bound is not None
        else "is worse than before by three deviations"
    )
    return f"taken back by itself if {canary.metric} {bound} after {canary.steps} steps"


def _waiting(record: ProposalRecord, window: Window, policy: Policy) -> list[Fact]:
    """What it costs to wait, and what becomes of it when nobody answers."""
    if record.expires_at is None:
        return []
    left = max(0.0, record.expires_at - time.time())
    instead = {
        "nothing": "nothing is done",
        "hold": "a checkpoint is written and training pauses",
        "allow_reversible": "it is done if it can be undone, else nothing",
    }[policy.approval.on_expiry]
    return [
        ("waiting", _cost_words(window, policy, left)),
        ("good until", _good_until_words(record, window)),
        ("time left", f"{_duration(left)}; if nobody answers, {instead}"),
    ]


def _good_until_words(record: ProposalRecord, window: Window) -> str:
    """How far the run may go before the proposal is too old to be approved."""
    last, pace = record.proposal.not_after_step, _pace(window)
    if last is None:
        return ""
    soon = ""
    if pace is not None:
        seconds = max(0, last - window.run.step) * pace
        soon = f", in some {_duration(seconds)}"
    return f"step {last}{soon}; past it, it can only be denied"


def _cost_words(window: Window, policy: Policy, left: float) -> str:
    if window.run.status == "paused":
        return "training waits for it"
    if window.run.status == "held":
        longest = _duration(policy.reflexes.hold_on_alarm)
        return f"training waits for it, {longest} at most, and then goes on as it is"
    pace = _pace(window)
    if pace is None:
        return "training goes on as it is"
    steps = float(f"{left / pace:.2g}")
    return f"training goes on as it is, some {steps:,.0f} steps until the time is out"


def _pace(window: Window) -> float | None:
    """Seconds a step, while steps are taken; None where it is not known."""
    found = next((s.median for s in window.summaries if s.metric == metrics.STEP_TIME), 0.0)
    return found if found > 0 and window.run.status not in ("held", "paused") else None


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if round(seconds) >= _SHORT_OF_TIME else f"{seconds:.0f} s"
