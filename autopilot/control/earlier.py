"""Where an earlier process of the run left it, from its journal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from autopilot.journal import Journal
from autopilot.journal.ancestry import Branch
from autopilot.schema import Episode, Event, Finding, ProposalRecord


@dataclass(frozen=True)
class Earlier:
    """A run that goes on in a new process.

    Attributes:
        branch: The branch that it was on.
        step: The last step of it that was recorded.
        branches: Every branch so far, in the order in which they began.
        in_force: What interventions had put in force, as the training side said it when the last
            of them was applied; empty where none was.
        undo_checkpoints: States that undo what was applied.
    """

    branch: str
    step: int
    branches: tuple[Branch, ...]
    in_force: dict[str, Any] = field(default_factory=dict)
    undo_checkpoints: frozenset[str] = frozenset()


def earlier_run(journal: Journal, events: Sequence[Event]) -> Earlier | None:
    """What a run's journal says of an earlier process of it; None where there was none.

    Args:
        journal: It.
        events: All of its events.
    """
    if not any(event.kind == "run_started" for event in events):
        return None
    branches = journal.branches()
    branch, step = _standing(journal, branches[-1])
    in_force: dict[str, Any] = {}
    undo: set[str] = set()
    for event in events:
        if event.kind != "applied":
            continue
        in_force = event.body.get("in_force", in_force)
        receipt = ProposalRecord.model_validate(event.body["record"]).receipt
        if receipt is not None and receipt.undo_checkpoint is not None:
            undo.add(receipt.undo_checkpoint)
    return Earlier(
        branch=branch,
        step=step,
        branches=tuple(branches),
        in_force=in_force,
        undo_checkpoints=frozenset(undo),
    )


def _standing(journal: Journal, newest: Branch) -> tuple[str, int]:
    """Branch and step that the run was on."""
    branch, step = journal.last_row
    if newest.fork_step is None or branch == newest.name:
        return branch, step
    rows = journal.rows(newest.name, last=1, from_step=newest.fork_step + 1)
    if any(row.branch == newest.name for row in rows):
        return branch, step
    return newest.name, newest.fork_step  # it went back, and no step followed


def findings_of(events: Iterable[Event]) -> list[Finding]:
    """Every finding that was journaled, oldest first."""
    return [Finding.model_validate(e.body["finding"]) for e in events if e.kind == "finding"]


def episodes_of(events: Iterable[Event]) -> list[Episode]:
    """Every episode as it last stood, in the order in which they began."""
    found: dict[str, Episode] = {}
    for event in events:
        if event.kind == "episode":
            episode = Episode.model_validate(event.body["episode"])
            found[episode.id] = episode
    return list(found.values())
