"""Where a run stood when its process was gone, from its journal alone."""

from dataclasses import dataclass
from pathlib import Path

from autopilot.journal import Journal
from autopilot.recording.journaled import JOURNAL_FILE
from autopilot.schema import Episode, Guidance, ProposalRecord, Row

_NO_END = "no end was journaled: the process was killed, or is gone without a word"
_ROWS = 200


@dataclass(frozen=True)
class EndedRun:
    """A run whose process does not answer.

    Attributes:
        status: ``ended`` or ``failed``; ``lost`` where no end was journaled.
        reason: Why it ended.
        branch: The branch that it was on, with its last step.
        rows: The last rows of that branch and its ancestors.
        episodes: As they last stood, those that are closed left out.
        proposals: As they last stood, in order.
        guidance: What operators had told its agents and not withdrawn.
    """

    name: str
    run_id: str
    status: str
    reason: str
    step: int
    branch: str
    rows: tuple[Row, ...]
    episodes: tuple[Episode, ...]
    proposals: tuple[ProposalRecord, ...]
    guidance: tuple[Guidance, ...]


def read_end(folder: Path) -> EndedRun:
    """The last state of a run, read from its directory.

    Raises:
        JournalError: There is no journal, or it cannot be read.
    """
    with Journal.read(folder / JOURNAL_FILE) as journal:
        events = journal.events()
        branch = journal.branches()[-1].name
        rows = tuple(journal.rows(branch, last=_ROWS))
        name, run_id = journal.name, journal.run_id
    episodes: dict[str, Episode] = {}
    proposals: dict[str, ProposalRecord] = {}
    told: dict[str, Guidance] = {}
    status, reason = "lost", _NO_END
    for event in events:
        if event.kind == "run_ended":
            status, reason = event.body["status"], event.body["reason"]
        elif event.kind == "episode":
            episode = Episode.model_validate(event.body["episode"])
            episodes[episode.id] = episode
        elif event.kind == "guidance":
            said = Guidance.model_validate(event.body["guidance"])
            told[said.id] = said
        elif "record" in event.body:
            record = ProposalRecord.model_validate(event.body["record"])
            proposals[record.id] = record
    return EndedRun(
        name=name,
        run_id=run_id,
        status=status,
        reason=reason,
        step=rows[-1].step if rows else 0,
        branch=branch,
        rows=rows,
        episodes=tuple(e for e in episodes.values() if e.status != "closed"),
        proposals=tuple(proposals.values()),
        guidance=tuple(said for said in told.values() if said.withdrawn_by is None),
    )
