"""Alarms against labelled events, one to one.

Everything is counted in rows of the recording, because rows are what a detector sees: a run logged
every 100 steps shows it nothing between. Delays are given in rows and in steps.

- An event can be found from ``EARLY`` rows before its onset (a labeller's eye is no ruler, and
  gradients lead the loss by some rows) to its deadline: its end, but no sooner than ``SOON`` and no
  later than ``LATE`` rows after its onset. Later than that nothing is left to save.
- One alarm finds one event and one event is found by one alarm. Alarms in order of time each take
  the event with the nearest deadline that is still to be found, which finds as many as possible
  (Glover 1967, Naval Research Logistics 14, 313-316). No event counts as found all along because
  of one hit in it ("point adjustment"): a coin flip would look good.
- What else is raised from ``EARLY`` rows before an event to ``AFTER`` rows past its end is a
  repetition: counted, but neither right nor wrong. Everything else is a false alarm.
- Events that need no finding (plateaus, gradient-only bursts, stalls, planned restarts, ...) excuse
  alarms in the same way, yet only up to their deadline: a plateau of 100,000 steps gives no licence
  to cry spike in the midst of it. An alarm of the event's own kind is right all through it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from autopilot_evals.labels import LabelledEvent

EARLY = 5
SOON = 20
LATE = 100
AFTER = 50


@dataclass(frozen=True)
class Alarm:
    """A detector woke somebody.

    Attributes:
        row: Position of the row that raised it; nothing after that row was known.
        kind: What it said it was; None for rules that do not say.
    """

    row: int
    step: int
    kind: str | None = None


@dataclass(frozen=True)
class Found:
    """One event and the alarm that found it, if one did."""

    event: LabelledEvent
    alarm: Alarm | None
    onset_row: int

    @property
    def delay_rows(self) -> int | None:
        """Rows from onset to alarm; negative where the alarm came first."""
        return None if self.alarm is None else self.alarm.row - self.onset_row

    @property
    def delay_steps(self) -> int | None:
        """Steps from the labelled onset to the alarm."""
        return None if self.alarm is None else self.alarm.step - self.event.onset


@dataclass(frozen=True)
class Matching:
    """One run's alarms against its labels.

    Attributes:
        found: The events that must be found, in order of onset.
        others: Those that need not be, each with the alarm that noticed it.
        repeated: Alarms within an event beyond the one that found it.
        false: Alarms where nothing happened.
        healthy_rows: Rows on which any alarm would have been false.
        healthy_steps: Steps that these rows stand for.
    """

    found: tuple[Found, ...]
    others: tuple[Found, ...]
    repeated: tuple[Alarm, ...]
    false: tuple[Alarm, ...]
    healthy_rows: int
    healthy_steps: int


@dataclass(frozen=True)
class _Zone:
    event: LabelledEvent
    onset: int
    first: int
    deadline: int
    last: int


def match(
    steps: Sequence[int], events: Sequence[LabelledEvent], alarms: Sequence[Alarm]
) -> Matching:
    """Hold the alarms of a run against what happened in it.

    Args:
        steps: The step of every row, in the order of the recording.
        events: What was labelled; ``healthy`` spans are ignored.
        alarms: What was raised.
    """
    reached = _highest_so_far(steps)
    zones = [_zone(reached, event) for event in events if event.kind != "healthy"]
    due = [zone for zone in zones if zone.event.loss_affecting]
    others = [zone for zone in zones if not zone.event.loss_affecting]
    ordered = sorted(alarms, key=lambda alarm: alarm.row)
    found, left = _assign(due, ordered)
    noticed, rest = _assign(others, left)
    excused = [alarm for alarm in rest if _excused(alarm, zones)]
    false = [alarm for alarm in rest if not _excused(alarm, zones)]
    rows, spanned = _healthy(steps, zones)
    return Matching(found, noticed, tuple(excused), tuple(false), rows, spanned)


def _highest_so_far(steps: Sequence[int]) -> list[int]:
    """Steps go backwards where a run was resumed; an event begins where its step is first met."""
    reached: list[int] = []
    for step in steps:
        reached.append(max(step, reached[-1]) if reached else step)
    return reached


def _zone(reached: Sequence[int], event: LabelledEvent) -> _Zone:
    onset = min(bisect_left(reached, event.onset), max(len(reached) - 1, 0))
    end = max(onset, bisect_left(reached, event.end + 1) - 1)
    deadline = min(max(end, onset + SOON), onset + LATE)
    last = end if event.loss_affecting else min(end, deadline)
    return _Zone(event, onset, onset - EARLY, deadline, max(last + AFTER, deadline))


def _assign(
    zones: Sequence[_Zone], alarms: Sequence[Alarm]
) -> tuple[tuple[Found, ...], list[Alarm]]:
    """Each alarm to the open event with the nearest deadline; what is left over."""
    taken: dict[int, Alarm] = {}
    left = []
    for alarm in alarms:
        fitting = [
            (zone.deadline, number)
            for number, zone in enumerate(zones)
            if number not in taken and zone.first <= alarm.row <= zone.deadline
        ]
        if fitting:
            taken[min(fitting)[1]] = alarm
        else:
            left.append(alarm)
    found = tuple(Found(zone.event, taken.get(i), zone.onset) for i, zone in enumerate(zones))
    return tuple(sorted(found, key=lambda one: one.onset_row)), left


def _excused(alarm: Alarm, zones: Sequence[_Zone]) -> bool:
    return any(
        zone.first <= alarm.row <= zone.last
        or (alarm.kind == zone.event.kind and zone.event.onset <= alarm.step <= zone.event.end)
        for zone in zones
    )


def _healthy(steps: Sequence[int], zones: Sequence[_Zone]) -> tuple[int, int]:
    """Rows outside every zone, and the steps from the row before to each of them."""
    sick = bytearray(len(steps))
    for zone in zones:
        first, last = max(zone.first, 0), min(zone.last, len(steps) - 1)
        sick[first : last + 1] = b"\x01" * (last + 1 - first)
    rows = spanned = 0
    for row, step in enumerate(steps):
        if not sick[row]:
            rows += 1
            spanned += max(step - steps[row - 1], 0) if row else 1
    return rows, spanned
