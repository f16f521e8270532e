"""What a person is shown to decide about a proposal: on half a screen, or one fact a line."""

import time

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autopilot.console.differences import differences, undo_words
from autopilot.console.facts import Fact, Look, course, facts_view
from autopilot.console.words import clean, interventions_words, number
from autopilot.guard import changes_course
from autopilot.policy import Policy
from autopilot.schema import Canary, Consultation, ProposalRecord, Window, metrics

_SHOWN_METRICS = 6
"""Columns of the details that fit a terminal of 80."""
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
    losses = [row.values[metrics.LOSS] for row in window.table if metrics.LOSS in row.values]
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


def details_view(window: Window) -> Table:
    """The window's last rows, for a closer look."""
    names = [s.metric for s in window.summaries][:_SHOWN_METRICS]
    table = Table("step", *names, box=None)
    for row in window.table[-14:]:
        span = str(row.last_step)
        if row.first_step != row.last_step:
            span = f"{row.first_step}-{row.last_step}"
        table.add_row(
            span, *(number(row.values[name]) if name in row.values else "" for name in names)
        )
    return table


def _facts(record: ProposalRecord, window: Window, policy: Policy) -> list[Fact]:
    """In the order in which a person asks: what is wrong, what to do, what if not."""
    proposal, episode = record.proposal, window.episode
    facts = []
    if episode is not None:
        facts.append(("seen", f"{episode.kind}, {episode.diagnosis}: {episode.reason}"))
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
    words = f"{left / 60:.0f} min" if left >= _SHORT_OF_TIME else f"{left:.0f} s"
    instead = {
        "nothing": "nothing is done",
        "hold": "a checkpoint is written and training pauses",
        "allow_reversible": "it is done if it can be undone, else nothing",
    }[policy.approval.on_expiry]
    return [
        ("waiting", _cost_words(window, left)),
        ("time left", f"{words}; if nobody answers, {instead}"),
    ]


def _cost_words(window: Window, left: float) -> str:
    if window.run.status in ("held", "paused"):
        return "training waits for it"
    paces = [s.median for s in window.summaries if s.metric == metrics.STEP_TIME]
    if not paces or not paces[0] > 0:
        return "training goes on as it is"
    steps = float(f"{left / paces[0]:.2g}")
    return f"training goes on as it is, some {steps:,.0f} steps until the time is out"
