"""Whether a journal still says what was written."""

import json
import sqlite3
from typing import Any

from autopilot.errors import JournalError
from autopilot.journal.blocks import Block
from autopilot.journal.encoding import canonical, event_hash
from autopilot.journal.pages import StoredPage
from autopilot.journal.store import STORED_PAGES

BRANCH_FIELDS = ("name", "parent", "fork_step")


def genesis(meta: dict[str, str]) -> str:
    """What the first event is bound to: the identity of the run."""
    return event_hash("", (), canonical(meta))


def check(db: sqlite3.Connection) -> None:
    """Raises :class:`JournalError` at the first event whose own hash or sealed rows do not hold."""
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    previous = genesis(meta)
    expected = int(meta["first_seq"])
    row_id = 1
    branches = {line[1]: line for line in db.execute("SELECT * FROM branches").fetchall()}
    started = set(json.loads(meta["branches"]))
    for line in db.execute(
        "SELECT seq, time, step, branch, kind, actor, body, hash FROM events ORDER BY seq"
    ):
        seq, *_, kind, _actor, body, digest = line
        if seq != expected:
            raise JournalError(f"event {expected} is missing from the journal")
        if event_hash(previous, tuple(line[:6]), body) != digest:
            raise JournalError(f"event {seq} of the journal was altered")
        if kind == "branch":
            _check_branch(branches, json.loads(body), seq)
            started.add(json.loads(body)["name"])
        if kind == "rows_sealed":
            row_id = _check_block(db, json.loads(body), row_id, seq)
        previous, expected = digest, seq + 1
    if extra := branches.keys() - started:
        raise JournalError(f"event {expected} is missing: no event started branch {min(extra)!r}")


def _check_branch(branches: dict[str, Any], body: dict[str, Any], seq: int) -> None:
    line = branches.get(body["name"])
    if line is None or tuple(line[1:4]) != tuple(body[field] for field in BRANCH_FIELDS):
        raise JournalError(f"the branch that event {seq} started was altered")


def _check_block(db: sqlite3.Connection, body: dict[str, Any], first: int, seq: int) -> int:
    block = Block(first)
    for line in db.execute(
        f"{STORED_PAGES} WHERE first_row BETWEEN ? AND ? ORDER BY first_row", (first, body["last"])
    ):
        try:
            stored = StoredPage(*line)
            block.add(stored, stored.page())
        except (ValueError, TypeError) as error:
            raise _altered(body, seq) from error
    if body != block.seal():
        raise _altered(body, seq)
    kept = db.execute(
        "SELECT * FROM summaries WHERE first_row BETWEEN ? AND ?", (first, body["last"])
    )
    if {*kept} != {*block.summaries()}:
        raise JournalError(
            f"the summaries of rows {first} to {body['last']}, sealed by event {seq}, were altered"
        )
    return int(body["last"]) + 1


def _altered(body: dict[str, Any], seq: int) -> JournalError:
    return JournalError(
        f"a row between {body['first']} and {body['last']}, sealed by event {seq}, was altered"
    )
