"""Runs that other programs recorded, as runs that Autopilot can replay and score."""

from autopilot_evals.importers.opening import FORMATS, guess_format, open_recording
from autopilot_evals.importers.run_directories import write_run_directory

__all__ = ["FORMATS", "guess_format", "open_recording", "write_run_directory"]
