"""What the control plane has seen of its run: rows in, findings and episodes out."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from autopilot.control.earlier import Earlier, episodes_of, findings_of
from autopilot.detectors import DetectorBank
from autopilot.schema import MAIN, Episode, Event, Evidence, Finding, Row
from autopilot.triage import Triage

_RECENT_ROWS = 2048
_FINDINGS_KEPT = 2000
_TROUBLED_ROWS = 50
_ALERT = 3.0


@dataclass
class Sighting:
    """What one row led to."""

    findings: list[Finding] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)


class Observation:
    """Runs the detectors and the triage over the rows of one run, in order."""

    def __init__(self) -> None:
        self.step = 0
        self.branch = MAIN
        self.executed = 0
        self._before: dict[str, float] = {}
        self._forks: dict[str, tuple[str, int]] = {}
        self.recent: deque[Row] = deque(maxlen=_RECENT_ROWS)
        self.findings: dict[str, Finding] = {}
        self.episodes: dict[str, Episode] = {}
        self._start_over(first_id=1)
        self._count = 0
        self._found_at = -_TROUBLED_ROWS

    def read(self, row: Row) -> Sighting | None:
        """Take in one row; None where it led to nothing, as nearly all do."""
        if row.step != self.step or row.branch != self.branch:
            self.executed += 1
        self.step, self.branch = row.step, row.branch
        self.recent.append(row)
        found = self._bank.update(row)
        if found:
            found = [self._number(finding) for finding in found]
        changed = self._triage.update(row, found)
        if not found and not changed:
            return None
        self._found_at = self.executed
        changed = self._news(changed)
        return Sighting([self._attach(finding) for finding in found], changed)

    def start_branch(self, name: str, parent: str, fork_step: int) -> None:
        """A branch begins: it leaves its parent's course after that step."""
        self._forks[name] = (parent, fork_step)
        self._before = self.last_values()
        self._triage.branch_started(name, fork_step, self.step)
        self.branch, self.step = name, fork_step

    def go_on(self, events: Sequence[Event], earlier: Earlier) -> list[Episode]:
        """Stand where an earlier process of the run left it, and give no number of its twice.

        Returns:
            The episodes that were open: they end with the process.
        """
        forks = [b for b in earlier.branches if b.parent is not None and b.fork_step is not None]
        self._forks = {b.name: (str(b.parent), int(b.fork_step or 0)) for b in forks}
        self.branch, self.step = earlier.branch, earlier.step
        found = findings_of(events)
        self._count = max((int((f.id or "F0")[1:]) for f in found), default=0)
        self.findings = {f.id or "": f for f in found[-_FINDINGS_KEPT:]}
        self.episodes = {episode.id: episode for episode in episodes_of(events)}
        return self.process_ended()

    def process_ended(self) -> list[Episode]:
        """What the detectors had learned is gone with the process that they were in.

        Returns:
            The episodes that were open: they end with it.
        """
        self._before = self.last_values()
        self._start_over(first_id=1 + len(self.episodes))
        left_open = [e.model_copy(update={"status": "closed"}) for e in self.open_episodes()]
        self.episodes.update((episode.id, episode) for episode in left_open)
        return left_open

    def last_values(self) -> dict[str, float]:
        """The last value of each metric, on whatever branch it was read."""
        return {**self._before, **self._triage.last}

    def _start_over(self, first_id: int) -> None:
        self._bank = DetectorBank()
        self._triage = Triage(self._bank.loss, self._bank.grad, first_id=first_id)

    @property
    def troubled(self) -> bool:
        """Something was found in the last rows, or an episode is not closed."""
        return self.executed - self._found_at < _TROUBLED_ROWS or any(
            episode.status != "closed" for episode in list(self.episodes.values())[-3:]
        )

    def alert_above(self) -> float:
        """The loss at which the next row would stand out; infinite while no course is learned."""
        trend = self._bank.loss
        return trend.at(_ALERT) if trend.ready else math.inf

    def intervened(self) -> list[Episode]:
        """An intervention changed the run: baselines from before it no longer hold.

        Returns:
            The episodes that count as treated with it.
        """
        self._bank.reset()
        self._triage.note_intervention(self.step)
        return self._news(self._triage.open_episodes())

    def _news(self, episodes: Iterable[Episode]) -> list[Episode]:
        """Those of which something worth telling has changed; keeps them all."""
        told = []
        for episode in episodes:
            if _gist(self.episodes.get(episode.id)) != _gist(episode):
                told.append(episode)
            self.episodes[episode.id] = episode
        return told

    def course(self) -> dict[str, int]:
        """The branch in force and its ancestors, each with its last step on the present course."""
        found = {self.branch: self.step}
        branch, last = self.branch, self.step
        while branch in self._forks:
            branch, fork_step = self._forks[branch]
            last = min(last, fork_step)
            found[branch] = last
        return found

    def open_episodes(self) -> list[Episode]:
        """Episodes that are not closed, oldest first."""
        return [e for e in self.episodes.values() if e.status != "closed"]

    def of_episode(self, episode: str | None) -> list[Finding]:
        """Findings of one episode, or all that are still held."""
        return [f for f in self.findings.values() if episode is None or f.episode == episode]

    def claim(self, finding: Finding, actor: str) -> Finding:
        """Take in what an outside detector claims; it never counts as the run's own alarm."""
        update = {"claimed_by": actor, "episode": None, "branch": self.branch}
        claimed = self._number(finding.model_copy(update=update))
        self.findings[claimed.id or ""] = claimed
        return claimed

    def _number(self, finding: Finding) -> Finding:
        self._count += 1
        return finding.model_copy(update={"id": f"F{self._count}"})

    def _attach(self, finding: Finding) -> Finding:
        for episode in self.episodes.values():
            if finding.id in episode.findings:
                finding = finding.model_copy(update={"episode": episode.id})
        self.findings[finding.id or ""] = finding
        while len(self.findings) > _FINDINGS_KEPT:
            del self.findings[next(iter(self.findings))]
        return finding


def _gist(episode: Episode | None) -> tuple[object, ...]:
    if episode is None:
        return ()
    return (episode.status, episode.kind, episode.diagnosis, episode.severity, episode.findings)


def figures_agree(cited: Evidence, recorded: float | None) -> bool:
    """Whether a cited figure is the recorded one, to the six digits people copy."""
    if recorded is None:
        return False
    if math.isnan(recorded) or math.isnan(cited.value):
        return math.isnan(recorded) and math.isnan(cited.value)
    return math.isclose(cited.value, recorded, rel_tol=1e-4, abs_tol=1e-12)
