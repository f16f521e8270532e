"""What was done about the same sickness in the user's own earlier runs, and what came of it.

Reads the journals of ended runs in one folder: a bounded number, nothing but events, nothing
written. What it finds is evidence about other runs; no figure of it can be cited of this one.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from autopilot.errors import JournalError
from autopilot.journal import Journal
from autopilot.recording.journaled import JOURNAL_FILE
from autopilot.report.history import History, read_history
from autopilot.schema import (
    Episode,
    Event,
    EventKind,
    Finding,
    ProposalRecord,
    Window,
    metrics,
)
from autopilot_agents.llm.fence import clean, figure, plain_name
from autopilot_agents.llm.view import intervention_text

NEWEST_RUNS: Final = 20
LINES: Final = 5
"""Of one answer, with the line that says where was looked."""
_EVENTS = 20_000
"""Of one run, at most; later ones are not read."""
_TREATMENTS, _LINE = 2, 420
_KINDS: tuple[EventKind, ...] = (
    "run_started", "run_ended", "finding", "episode", "proposal", "approval", "applied",
    "rejected", "receipt", "canary", "status",
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How strong a sickness showed; None where it is not known.

    Attributes:
        score: The highest score of its own findings: robust deviations, for most kinds.
        rise: The loss over what its course let expect.
        progress: The onset as a part of all steps, 0 to 1.
    """

    score: float | None
    rise: float | None
    progress: float | None


@dataclass(frozen=True)
class PastEpisode:
    """An episode of an ended run, with what was done about it."""

    run: str
    episode: Episode
    scale: Scale
    treatments: tuple[ProposalRecord, ...]


@dataclass
class _Search:
    """What was found, and what was not read."""

    found: list[PastEpisode] = field(default_factory=list)
    ended: int = 0
    going: int = 0
    unreadable: int = 0


def similar_episodes(folder: Path, window: Window) -> str:
    """Episodes of the same kind in ended runs, the most similar first; at most five lines.

    Args:
        folder: Holds run directories; the newest 20 are read, this run's own never.
        window: The run and the episode in question.
    """
    episode = window.episode
    if episode is None:
        return "no episode is in question"
    search = _searched(folder, window.run.run_id, episode)
    if search is None:
        return "the folder of earlier runs cannot be read"
    own = scale_of(episode, window.findings, window.run.steps)
    best = heapq.nlargest(LINES - 1, search.found, key=lambda past: similarity(episode, own, past))
    head = f"{len(search.found)} episodes of kind {episode.kind} in {search.ended} ended runs"
    unread = (("could not be read", search.unreadable), ("have not ended", search.going))
    notes = [f"{count} more {words}" for words, count in unread if count]
    return "\n".join(("; ".join((head, *notes)), *(_line(p, similarity(episode, own, p))
                                                   for p in best)))  # fmt: skip


def similarity(episode: Episode, own: Scale, past: PastEpisode) -> float:
    """How like a past episode of the same kind is, 0 to 1.

    Half of it is the diagnosis, which decides the family of remedy: the same counts one, another
    nothing. The other half is the mean closeness of what both scales know: the smaller over the
    larger of score and rise, one less the distance of progress; one half where they share nothing.
    """
    then = past.scale
    shared = [
        *(_ratio(a, b) for a, b in ((own.score, then.score), (own.rise, then.rise))
          if a is not None and b is not None),
        *(1 - abs(a - b) for a, b in ((own.progress, then.progress),)
          if a is not None and b is not None),
    ]  # fmt: skip
    close = sum(shared) / len(shared) if shared else 0.5
    return 0.5 * (past.episode.diagnosis == episode.diagnosis) + 0.5 * close


def _ratio(a: float, b: float) -> float:
    return min(a, b) / max(a, b) if max(a, b) > 0 else 1.0


def scale_of(episode: Episode, findings: Iterable[Finding], steps: int | None) -> Scale:
    """How strong an episode showed."""
    scores = [
        abs(found.score)
        for found in findings
        if found.kind == episode.kind and found.claimed_by is None and math.isfinite(found.score)
    ]
    return Scale(
        score=max(scores, default=None),
        rise=_rise(episode.fingerprint),
        progress=min(episode.onset_step / steps, 1.0) if steps else None,
    )


def _rise(fingerprint: Mapping[str, float]) -> float | None:
    loss, expected = fingerprint.get(metrics.LOSS), fingerprint.get("loss_expected")
    if loss is None or expected is None or not (loss > 0 and expected > 0):
        return None
    return loss / expected if math.isfinite(loss / expected) else None


# --- reading ------------------------------------------------------------------------------------


def _searched(folder: Path, own_run: str, episode: Episode) -> _Search | None:
    try:
        journals = _newest_first(folder)
    except OSError:
        return None
    search = _Search()
    for path in journals:
        if search.ended + search.going + search.unreadable == NEWEST_RUNS:
            break
        try:
            with Journal.read(path) as journal:
                if journal.run_id == own_run:
                    continue
                name = journal.name
                events = journal.events(kinds=_KINDS, limit=_EVENTS)
            if not _has_ended(events):
                search.going += 1
                continue
            search.found += _of_kind(name, events, episode)
            search.ended += 1
        except (JournalError, KeyError, TypeError, ValueError):  # not what a run of ours writes
            search.unreadable += 1
    return search


def _newest_first(folder: Path) -> list[Path]:
    """Journals of the runs in a folder, by the time of their last change."""
    found = []
    for run in folder.iterdir():
        journal = run / JOURNAL_FILE
        try:
            if journal.is_file():
                found.append((journal.stat().st_mtime, journal))
        except OSError:
            continue  # gone meanwhile, or somebody else's
    return [journal for _, journal in sorted(found, reverse=True)]


def _has_ended(events: Sequence[Event]) -> bool:
    marks = [event.kind for event in events if event.kind in ("run_started", "run_ended")]
    return bool(marks) and marks[-1] == "run_ended"


def _of_kind(name: str, events: Sequence[Event], episode: Episode) -> Iterator[PastEpisode]:
    history = read_history(events)
    findings = [Finding.model_validate(e.body["finding"]) for e in events if e.kind == "finding"]
    steps = max((event.step for event in events), default=0)
    for past in history.episodes.values():
        if past.kind == episode.kind:
            own = [found for found in findings if found.episode == past.id]
            yield PastEpisode(name, past, scale_of(past, own, steps), _treatments(history, past))


def _treatments(history: History, episode: Episode) -> tuple[ProposalRecord, ...]:
    """What was done about an episode; where nothing was, what was only wanted."""
    about = [r for r in history.records.values() if r.proposal.episode == episode.id]
    done = [record for record in about if record.receipt is not None]
    return tuple((done or about)[-_TREATMENTS:])


# --- words --------------------------------------------------------------------------------------


def _line(past: PastEpisode, alike: float) -> str:
    scale, episode = past.scale, past.episode
    facts: list[str] = [episode.diagnosis]
    if scale.score is not None:
        facts.append(f"score {figure(scale.score, 3)}")
    if scale.rise is not None:
        facts.append(f"loss {figure(scale.rise, 3)} times its course")
    if scale.progress is not None:
        facts.append(f"after {scale.progress:.0%} of the run")
    did = "; ".join(map(_treatment, past.treatments)) or "nothing was done"
    end = "over" if episode.status == "closed" else "still there when the run ended"
    words = (
        f"{plain_name(past.run)} {plain_name(episode.id)} ({', '.join(facts)}; similarity "
        f"{alike:.2f}): {did}; {end}"
    )
    return clean(words, _LINE)


def _treatment(record: ProposalRecord) -> str:
    what = ", then ".join(intervention_text(one) for one in record.proposal.interventions)
    result = record.canary_result
    if result is None:
        return f"{what}: {record.status}"
    return (
        f"{what}: {record.status}, canary {result.result} with {plain_name(result.metric)} "
        f"{figure(result.value, 4)}, bound {figure(result.bound, 4)}"
    )
