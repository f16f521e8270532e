"""Rules that trainers and alert scripts use, written anew from their published description.

Each reads rows and says whether it would act on this one, at the thresholds it was published with.
"""

from collections.abc import Callable

from autopilot_evals.baselines.base import AlarmCollector, Rule, alarms_of
from autopilot_evals.baselines.limits import FirstMaximum, NotANumber
from autopilot_evals.baselines.windows import (
    EMAZScore,
    PageHinkley,
    RollingMAD,
    RunningMeanFactor,
    SixSigma,
)

RULES: dict[str, Callable[[], Rule]] = {
    SixSigma.name: SixSigma,
    RunningMeanFactor.name: RunningMeanFactor,
    EMAZScore.name: EMAZScore,
    RollingMAD.name: RollingMAD,
    PageHinkley.name: PageHinkley,
    FirstMaximum.name: FirstMaximum,
    NotANumber.name: NotANumber,
}
"""Every rule of others by its name."""

__all__ = ["RULES", "AlarmCollector", "Rule", "alarms_of"]
