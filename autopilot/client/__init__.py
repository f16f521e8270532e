"""A live run over its control API, as the pilot and people's tools see it."""

from autopilot.client.directory import Role, connect
from autopilot.client.http import HttpRun

__all__ = ["HttpRun", "Role", "connect"]
