"""The control API of a run, over HTTP."""

from autopilot_trainer.api.app import build_app
from autopilot_trainer.api.plane import Plane
from autopilot_trainer.auth import Tokens

__all__ = ["Plane", "Tokens", "build_app"]
