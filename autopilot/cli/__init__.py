"""The command line: the composition root, which imports everything, lazily."""

from autopilot.cli.app import main

__all__ = ["main"]
