"""Rows that keep a score honest: none of them may look good."""

import random
from collections.abc import Sequence

from autopilot_evals.scoring.matching import Alarm

NEVER = "never"
ALWAYS = "always"
RANDOM = "random at our rate"


def always_alarms(steps: Sequence[int]) -> list[Alarm]:
    """An alarm on every row."""
    return [Alarm(row, step) for row, step in enumerate(steps)]


def random_alarms(steps: Sequence[int], rate: float, seed: str) -> list[Alarm]:
    """Alarms on rows drawn at random, at the rate at which the rule under test raises them.

    Args:
        steps: The step of every row.
        rate: Expected alarms per row.
        seed: The same seed draws the same rows.
    """
    draw = random.Random(seed)  # noqa: S311
    return [Alarm(row, step) for row, step in enumerate(steps) if draw.random() < rate]
