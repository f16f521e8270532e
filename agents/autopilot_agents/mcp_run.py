"""The run behind an MCP server: live with the agent's token, or what its journal still tells."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from autopilot.client import HttpRun, connect
from autopilot.errors import (
    AutopilotError,
    BadInput,
    Forbidden,
    NotARun,
    NotFound,
    Refused,
    Unreachable,
)
from autopilot.recording import EndedRun, is_run, read_end, read_run
from autopilot.schema import (
    CheckpointInfo,
    Episode,
    Event,
    Finding,
    Proposal,
    ProposalRecord,
    ProposalStatus,
    Row,
    metrics,
)
from autopilot.window import ROWS, SHOWN, summarise, tail_dense
from autopilot_agents.mcp_text import Sight

_T = TypeVar("_T")
_NOBODY = "0"
"""An id that no proposal has."""


class ServedRun:
    """One run, as an MCP server reads it and proposes to it.

    It holds the agent's token at most: whoever talks to the server can do what an agent may, which
    the policy judges, and cannot approve. Its methods may be called from any thread.

    Args:
        place: A run directory, or the URL of a control API with a token in ``AUTOPILOT_TOKEN``.

    Raises:
        NotARun: There is no run, live or recorded.
        Unreachable: Nobody answers at the URL.
        BadInput: The token in the environment is the operator's, or there is none.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._folder = None if "://" in place or not is_run(Path(place)) else Path(place)
        self._run: HttpRun | None = None
        self._lock = Lock()
        try:
            self._connected()
        except (NotARun, Unreachable):
            if self._folder is None:
                raise

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._run is not None:
                self._run.close()
            self._run = None

    def status(self) -> dict[str, Any]:
        """Where the run is, what is in force, what it offers, what waits for a person."""

        def live(run: HttpRun) -> dict[str, Any]:
            waiting = [record.id for record in run.proposals("pending")]
            return {"live": True, "run": run.info(), "waiting_for_a_person": waiting}

        return self._read(live, lambda folder: {"live": False, **_end(read_end(folder))})

    def episodes(self) -> list[Episode]:
        """Every episode, those that are over included."""
        return self._read(
            lambda run: [*run.closed(), *run.episodes()],
            lambda folder: list(_episodes(read_run(folder).events).values()),
        )

    def findings(self, episode: str | None) -> list[Finding]:
        """Findings of one episode, or all."""
        return self._read(
            lambda run: run.findings(episode),
            lambda folder: _findings(read_run(folder).events, episode),
        )

    def checkpoints(self) -> list[CheckpointInfo]:
        """States one can go back to."""
        return self._read(
            lambda run: run.checkpoints(),
            lambda folder: _checkpoints(read_run(folder).events),
        )

    def events(self, after: int, most: int) -> list[Event]:
        """Journal events after a sequence number, at most so many."""
        return self._read(
            lambda run: run.events(after)[:most],
            lambda folder: [e for e in read_run(folder).events if e.seq > after][:most],
        )

    def proposals(self, status: ProposalStatus | None) -> list[ProposalRecord]:
        """Proposals with their outcomes."""
        return self._read(
            lambda run: run.proposals(status),
            lambda folder: [r for r in read_end(folder).proposals if status in (None, r.status)],
        )

    def proposal(self, proposal_id: str) -> ProposalRecord:
        """One proposal with everything that became of it."""

        def past(folder: Path) -> ProposalRecord:
            found = {record.id: record for record in read_end(folder).proposals}
            if proposal_id not in found:
                raise NotFound(f"no proposal {proposal_id!r}; there are: {_named(found)}")
            return found[proposal_id]

        return self._read(lambda run: run.proposal(proposal_id), past)

    def policy_text(self) -> str:
        """The policy as it was written."""
        return self._read(
            lambda run: run.policy_text(), lambda folder: _policy(read_run(folder).events)
        )

    def sight(self, episode_id: str | None) -> Sight:
        """Figures around an episode, or of now where none is named."""
        episode = self._episode(episode_id) if episode_id is not None else None
        branch = None if episode is None else episode.branch
        rows = self._read(
            lambda run: run.rows(last=ROWS, branch=branch),
            lambda folder: _rows(folder, branch),
        )
        names = _names(rows)
        return Sight(
            episode=episode,
            findings=tuple(self.findings(episode_id)) if episode_id is not None else (),
            summaries=tuple(summarise(name, rows) for name in names),
            table=tail_dense(rows, names),
        )

    def propose(self, proposal: Proposal, key: str) -> ProposalRecord:
        """File a proposal with the agent's token; the run's policy judges it.

        Raises:
            Refused: The run is over.
            Unreachable: It does not answer any more.
        """
        try:
            return self._connected().propose(proposal, key=key)
        except (NotARun, Unreachable) as error:
            self._lose()
            if self._folder is None:
                raise
            end = read_end(self._folder)
            raise Refused(
                f"nothing can be proposed: the run's process is gone ({end.status} at step "
                f"{end.step}: {end.reason}); its journal can still be read"
            ) from error

    def _episode(self, episode_id: str) -> Episode:
        found = {episode.id: episode for episode in self.episodes()}
        if episode_id not in found:
            raise NotFound(f"no episode {episode_id!r}; there are: {_named(found)}")
        return found[episode_id]

    def _read(self, live: Callable[[HttpRun], _T], past: Callable[[Path], _T]) -> _T:
        """From the process where it answers, else from the journal where there is one."""
        try:
            return live(self._connected())
        except (NotARun, Unreachable):
            self._lose()
            if self._folder is None:
                raise
        return past(self._folder)

    def _connected(self) -> HttpRun:
        """The live run; a process that has taken its place since is found by its directory."""
        with self._lock:
            if self._run is None:
                run = connect(self._place, "agent", "mcp")
                try:
                    _check_role(run)
                except AutopilotError:
                    run.close()
                    raise
                self._run = run
            return self._run

    def _lose(self) -> None:
        """Nobody answers there any more; another thread may still be waiting on it."""
        with self._lock:
            self._run = None


def _check_role(run: HttpRun) -> None:
    """Refuse to hold the operator's token: a call that only it may make must be forbidden."""
    try:
        run.confirm(_NOBODY)
    except Forbidden:
        return
    except NotFound:
        raise BadInput(
            "AUTOPILOT_TOKEN is the operator's token; an MCP server holds the agent's only, so "
            "that nobody approves through it"
        ) from None


def _end(end: EndedRun) -> dict[str, Any]:
    return {
        "note": "its process does not answer; this is what its journal tells, and nothing can be "
        "proposed",
        "name": end.name,
        "run_id": end.run_id,
        "status": end.status,
        "reason": end.reason,
        "step": end.step,
        "branch": end.branch,
        "last_values": end.rows[-1].values if end.rows else {},
    }


def _episodes(events: Iterable[Event]) -> dict[str, Episode]:
    found = (Episode.model_validate(e.body["episode"]) for e in events if e.kind == "episode")
    return {episode.id: episode for episode in found}


def _findings(events: Iterable[Event], episode: str | None) -> list[Finding]:
    found = (Finding.model_validate(e.body["finding"]) for e in events if e.kind == "finding")
    return [finding for finding in found if episode in (None, finding.episode)]


def _checkpoints(events: Iterable[Event]) -> list[CheckpointInfo]:
    return [
        CheckpointInfo.model_validate(event.body["checkpoint"])
        for event in events
        if event.kind == "checkpoint"
    ]


def _policy(events: Iterable[Event]) -> str:
    started = [event.body for event in events if event.kind == "run_started"]
    return str(started[-1].get("policy", "")) if started else ""


def _rows(folder: Path, branch: str | None) -> Sequence[Row]:
    if branch is None:
        return read_end(folder).rows
    return tuple(deque((r for r in read_run(folder).rows() if r.branch == branch), maxlen=ROWS))


def _names(rows: Iterable[Row]) -> list[str]:
    seen = {name for row in rows for name in row.values} - {metrics.BATCH_DIGEST}
    return [name for name in SHOWN if name in seen] + sorted(seen.difference(SHOWN))


def _named(found: Iterable[str]) -> str:
    return ", ".join(list(found)[-10:]) or "none"
