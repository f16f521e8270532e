"""One training many times over: left alone, piloted, and with every move of a menu."""

from autopilot_evals.forks.flight import ALONE, PILOTED, Applied, Outcome, alone, fly
from autopilot_evals.forks.lockstep import LockstepSession

__all__ = ["ALONE", "PILOTED", "Applied", "LockstepSession", "Outcome", "alone", "fly"]
