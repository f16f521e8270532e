"""What a journal holds, as it last stood."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from autopilot.schema import Episode, Event, NoProposal, ProposalRecord


@dataclass
class History:
    """A run's journal, read once.

    Attributes:
        records: Every proposal by its id, as it last stood.
        applied: When what was applied was applied, by the id of its proposal.
        episodes: Every episode by its id, as it last stood.
        changed: When an episode last changed.
        said: The last reason not to propose anything, by episode; "" where none was named.
        end: How the run ended and why; None where no end was journaled since it last started.
        reason: Why it last changed its status.
    """

    records: dict[str, ProposalRecord] = field(default_factory=dict)
    applied: dict[str, float] = field(default_factory=dict)
    episodes: dict[str, Episode] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    said: dict[str, NoProposal] = field(default_factory=dict)
    end: tuple[str, str] | None = None
    reason: str = ""


def read_history(events: Iterable[Event]) -> History:
    """Read a journal from its beginning."""
    history = History()
    for event in events:
        _read(history, event)
    return history


def _read(history: History, event: Event) -> None:
    body = event.body
    if "record" in body:
        record = ProposalRecord.model_validate(body["record"])
        history.records[record.id] = record
        if event.kind == "applied":
            history.applied[record.id] = event.time
        return
    match event.kind:
        case "episode":
            episode = Episode.model_validate(body["episode"])
            history.episodes[episode.id] = episode
            history.changed[episode.id] = event.time
        case "no_proposal":
            said = NoProposal.model_validate(body["no_proposal"])
            history.said[said.episode or ""] = said
        case "run_started":
            history.end, history.reason = None, ""
        case "run_ended":
            history.end = (body["status"], body["reason"])
            history.reason = body["reason"]
        case "status":
            history.reason = str(body.get("reason", ""))
        case _:
            return
