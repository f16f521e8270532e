"""The story of a run while it happens: what is news to a person, and what is not."""

import io

import pytest
from rich.console import Console

from autopilot.console.story import LiveStory
from autopilot.schema import Episode, Event, Finding, metrics

HELD = "waiting for the pilot's decision about ep-0001"


def event(kind: str, body: dict[str, object]) -> Event:
    return Event.model_validate(
        {
            "seq": 1,
            "time": 0.0,
            "step": 7,
            "branch": "main",
            "kind": kind,
            "actor": "s",
            "body": body,
        }
    )


def finding(episode: str | None = "ep-0001") -> Event:
    found = Finding(
        kind="schedule_fault", tier="invariant", severity="warn", metric=metrics.LR, step=7,
        score=1.0, message="the rate is zero", detector="schedule_fault", episode=episode,
    )  # fmt: skip
    return event("finding", {"finding": found.model_dump(mode="json")})


def episode(status: str, name: str = "ep-0001") -> Event:
    seen = Episode.model_validate(
        {
            "id": name, "branch": "main", "kind": "schedule_fault", "diagnosis": "misdriven",
            "severity": "warn", "status": status, "alarm": False, "invariant_broken": True,
            "onset_step": 6, "last_step": 7, "findings": [],
        }
    )  # fmt: skip
    return event("episode", {"episode": seen.model_dump(mode="json")})


def status(status: str, reason: str = "") -> Event:
    return event("status", {"status": status, "reason": reason})


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([finding(), episode("open"), finding(), episode("open")], 2),
        ([episode("open"), episode("watching"), episode("open")], 3),
        ([finding(), finding("ep-0002"), episode("open"), episode("open", "ep-0002")], 4),
        ([finding(None), finding(None)], 2),
        ([status("held", HELD), status("running"), status("held", HELD), status("running")], 2),
        (
            [
                status("paused", "kim"),
                status("running"),
                status("paused", "kim"),
                status("running"),
            ],
            4,
        ),
    ],
)
def test_what_lasts_is_told_once_and_what_changes_each_time(events: list[Event], told: int) -> None:
    printed = io.StringIO()
    story = LiveStory(Console(file=printed, width=200))
    told_by_pass = [story.tell([happened]) for happened in events]
    assert printed.getvalue().count("\n") == sum(told_by_pass) == told
