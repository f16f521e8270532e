"""Episodes with what came of them."""

from collections.abc import Sequence

from autopilot.report.history import History
from autopilot.report.model import Sickness
from autopilot.schema import Episode, ProposalRecord

_IN_FORCE = ("applied", "kept")
_ON_ITS_WAY = ("pending", "queued")


def sicknesses(history: History, since: float, *, live: bool) -> tuple[Sickness, ...]:
    """Episodes that changed in the time, or are not closed, in the order they began."""
    return tuple(
        _sickness(history, episode, live=live)
        for episode in history.episodes.values()
        if history.changed[episode.id] >= since or episode.status != "closed"
    )


def _sickness(history: History, episode: Episode, *, live: bool) -> Sickness:
    answers = [r for r in history.records.values() if r.proposal.episode == episode.id]
    helped = any(record.status in _IN_FORCE for record in answers)
    waits = live and any(record.status in _ON_ITS_WAY for record in answers)
    # What is misdriven or a blip may pass by itself; damaged weights do not come back unaided.
    goes_on = episode.status != "closed" or episode.diagnosis == "damaged"
    matters = goes_on and (episode.alarm or episode.invariant_broken)
    return Sickness(
        episode=episode,
        remedies=tuple(record.id for record in answers),
        outcome=_outcome(episode, answers),
        said=history.said.get(episode.id),
        open_question=matters and episode.diagnosis != "benign" and not helped and not waits,
    )


def _outcome(episode: Episode, answers: Sequence[ProposalRecord]) -> str:
    over = "over" if episode.status == "closed" else episode.status
    force = [record.id for record in answers if record.status in _IN_FORCE]
    if force:
        return f"{over}; {', '.join(force)} in force"
    if not answers:
        passed = "by itself" if episode.status == "closed" else "nothing was proposed"
        return f"{over}, {passed}"
    return f"{over}; " + ", ".join(f"{record.id} {record.status}" for record in answers)
