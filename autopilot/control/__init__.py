"""The control plane of one run; knows neither torch nor HTTP."""

from autopilot.control.core import SYSTEM, TrainingSide
from autopilot.control.earlier import Earlier
from autopilot.control.flight import Hold
from autopilot.control.plane import ControlPlane
from autopilot.control.port import PlaneRun

__all__ = ["SYSTEM", "ControlPlane", "Earlier", "Hold", "PlaneRun", "TrainingSide"]
