"""Detectors: one file, one class, one kind of trouble; :class:`DetectorBank` runs them all.

Three tiers. *Invariants* compare and do not infer, so they raise no false alarm. *Watches* are
written down and date an onset. *Alarms* wake an agent.
"""

from autopilot.detectors.bank import DetectorBank, default_detectors
from autopilot.detectors.base import BaseDetector
from autopilot.detectors.trend import Trend

__all__ = ["BaseDetector", "DetectorBank", "Trend", "default_detectors"]
