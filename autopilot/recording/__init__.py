"""Recorded runs, and the :class:`~autopilot.ports.Run` that replays one."""

from autopilot.recording.ended import EndedRun, read_end
from autopilot.recording.journaled import is_run, read_run
from autopilot.recording.plane import Stop
from autopilot.recording.recorded import Fork, RecordedRun
from autopilot.recording.recording import Judged, Playback, Recording

__all__ = [
    "EndedRun",
    "Fork",
    "Judged",
    "Playback",
    "RecordedRun",
    "Recording",
    "Stop",
    "is_run",
    "read_end",
    "read_run",
]
