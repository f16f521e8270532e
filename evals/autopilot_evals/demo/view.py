"""The live view of a flight: three trainings side by side, and the story of the piloted one."""

import time
from collections import deque

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autopilot.console.story import LiveStory, event_line
from autopilot.console.words import number, sparkline
from autopilot.schema import Event, metrics
from autopilot_evals.demo.flight import ARMS, Arm, Flight

_LABEL = {
    "alone": "left alone",
    "pilot": "with the pilot",
    "reference": "as it should be",
}
_REFRESH = 0.25


class LiveView:
    """Redraws a flight a few times a second; on no terminal, prints the story as it happens.

    Args:
        flight: What to show.
        console: Where to show it.
        quiet: Show nothing.
        draw: Redraw, where there is a terminal.
        asking: A person is asked here, beside the story.
    """

    def __init__(
        self,
        flight: Flight,
        console: Console,
        *,
        quiet: bool = False,
        draw: bool = True,
        asking: bool = False,
    ) -> None:
        self._flight = flight
        self._console = console
        self._quiet = quiet
        self._asking = asking
        self._told = LiveStory(console, times=False)
        self._seen = 0
        self._story: deque[Text] = deque(maxlen=max(6, console.height - 16))
        drawn = draw and console.is_terminal and not quiet
        self._live = Live(console=console, auto_refresh=False) if drawn else None

    def __enter__(self) -> "LiveView":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def watch(self) -> None:
        """Draw what is new, then rest."""
        events = self._fresh()
        if self._live is not None:
            lines = (event_line(event, times=False) for event in events)
            self._story.extend(line for line in lines if line is not None)
            self._live.update(self._draw(), refresh=True)
        elif not self._quiet:
            self._told.tell(events, asking=self._asking)
        time.sleep(_REFRESH)

    def _fresh(self) -> list[Event]:
        events = self._flight.arms["pilot"].events(self._seen)
        if events:
            self._seen = events[-1].seq
        return [event for event in events if event.kind != "heartbeat"]

    def _draw(self) -> RenderableType:
        table = Table.grid(padding=(0, 2), expand=True)
        for name in ARMS:
            table.add_row(*self._arm_cells(self._flight.arms[name]))
        title = f"{self._flight.scenario.title} · seed {self._flight.seed}"
        story = Group(*self._story) if self._story else Text("nothing to report", style="dim")
        return Group(
            Panel(table, title=title, title_align="left"),
            Panel(story, title="the piloted run", title_align="left"),
        )

    def _arm_cells(self, arm: Arm) -> tuple[RenderableType, ...]:
        rows = arm.rows()
        losses = [row.values[metrics.LOSS] for row in rows if metrics.LOSS in row.values]
        if not losses:
            state = "waits" if arm.launched is None else "starts"
            return Text(_LABEL[arm.name]), Text(state, style="dim"), "", "", ""
        last = rows[-1]
        lr = next((r.values[metrics.LR] for r in reversed(rows) if metrics.LR in r.values), None)
        width = max(20, min(60, self._console.width - 60))
        return (
            Text(_LABEL[arm.name], style="bold" if arm.name == "pilot" else ""),
            Text(sparkline(losses, width), no_wrap=True, overflow="crop"),
            f"loss {number(losses[-1])}",
            f"lr {number(lr)}",
            f"step {last.step}",
        )
