"""What a session takes from where it runs: the environment, the host's memory, the disk."""

import os
from pathlib import Path

from autopilot.errors import BadInput, JournalError
from autopilot.journal import Journal
from autopilot.policy import DEFAULT_POLICY, Policy, parse_policy, read_policy
from autopilot_trainer.run_directory import RunDirectory

_SNAPSHOT_BYTES = 4 << 30
_SNAPSHOT_SHARE = 4
"""Snapshots take at most a quarter of the host's memory, unless the user says otherwise."""


def affordable_bytes() -> int:
    """Bound on all snapshots together, where the user gives none."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(_SNAPSHOT_BYTES, memory // _SNAPSHOT_SHARE)


def port_from_environment() -> int:
    """Where the control API is to listen; 0 is any free port."""
    wish = os.environ.get("AUTOPILOT_PORT", "") or "0"
    try:
        return int(wish)
    except ValueError as error:
        raise BadInput(f"AUTOPILOT_PORT={wish!r}: not a port number") from error


def resume_from_environment() -> bool:
    """Whether whoever started us wants the run in the directory to go on."""
    wish = os.environ.get("AUTOPILOT_RESUME", "") or "0"
    if wish not in ("0", "1"):
        raise BadInput(f"AUTOPILOT_RESUME={wish!r}: expected 1 or 0")
    return wish == "1"


def exactness_from_environment() -> int:
    """Steps to train twice and compare; 0 where nobody asked for that."""
    wish = os.environ.get("AUTOPILOT_CHECK_EXACT", "") or "0"
    if not wish.isdecimal():
        raise BadInput(f"AUTOPILOT_CHECK_EXACT={wish!r}: expected a number of steps")
    return int(wish)


def resolve_policy(policy: Policy | str | Path | None) -> tuple[Policy, str]:
    """The policy and its text."""
    if isinstance(policy, Policy):
        return policy, policy.model_dump_json(indent=2)
    path = policy or os.environ.get("AUTOPILOT_POLICY")
    if path is None:
        return parse_policy(DEFAULT_POLICY), DEFAULT_POLICY
    return read_policy(path), Path(path).read_text(encoding="utf-8")


def open_journal(directory: RunDirectory) -> tuple[Journal, str | None]:
    """The run's journal; one in memory, and why, where the directory takes none.

    Raises:
        JournalError: The run goes on, and its journal is damaged, or another process writes it.
    """
    if directory.journal.exists():
        return Journal.open(directory.journal), None
    try:
        journal = Journal.create(directory.journal, run_id=directory.run_id, name=directory.name)
    except JournalError as error:
        memory = Journal.create(":memory:", run_id=directory.run_id, name=directory.name)
        return memory, f"{error}; recording in memory only"
    return journal, None
