"""What ``run`` and ``watch`` tell of a run: a story for people, or JSON lines for programs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from autopilot.cli.output import console, warn
from autopilot.errors import JournalError
from autopilot.journal import Journal
from autopilot.recording.journaled import JOURNAL_FILE
from autopilot.schema import Event


class Telling:
    """Tells every event once, whatever process of the run journaled it.

    Where nobody reads any more, it falls silent: piloting does not hang on being heard.

    Args:
        json: As JSON lines on standard error, and not as a story on standard output.
    """

    def __init__(self, json: bool) -> None:
        from autopilot.console.story import LiveStory

        self._story = None if json else LiveStory(console)
        self._told = 0
        self._heard = True

    def tell(self, events: Sequence[Event], *, asking: bool = False) -> bool:
        """Tell what was not told yet; whether there was anything for a person.

        Args:
            events: In order.
            asking: A person is asked here: what waits for an answer is put as a question instead.
        """
        fresh = [event for event in events if event.seq > self._told]
        self._told = max([self._told, *(event.seq for event in fresh)])
        if not self._heard:
            return False
        try:
            if self._story is not None:
                return self._story.tell(fresh, asking=asking)
            for event in fresh:
                sys.stderr.buffer.write(event.model_dump_json().encode() + b"\n")
                sys.stderr.buffer.flush()
        except OSError as error:
            self._heard = False
            warn(f"the story cannot be told any more, piloting goes on: {error.strerror}")
        return False

    def tell_rest(self, folder: Path) -> None:
        """Tell what the pilot did not live to see: a process that is gone answers nobody."""
        try:
            with Journal.read(folder / JOURNAL_FILE) as journal:
                events = journal.events(self._told)
        except JournalError:
            return
        self.tell(events)
