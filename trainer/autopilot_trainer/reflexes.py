"""What the step does by itself, at once and without anybody: skip an update that would harm."""

import math
from collections import deque

from autopilot.policy import Reflexes

_WINDOW = 64
_READY = 20
_REFRESH = 8
"""Norms after which the median is taken anew."""
_LOUD = 4.0
"""Medians from which on a norm is worth a closer look; healthy logs rarely pass it."""
NON_FINITE = "skip_non_finite"
SPIKE = "skip_spike"


class UpdateReflex:
    """Decides from the gradient norm whether an update is let through.

    A norm that is skipped never enters the median, and only so many spikes in a row are skipped:
    what persists is no spike.
    """

    def __init__(self, terms: Reflexes) -> None:
        self._terms = terms
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._limit = math.inf
        self._loud = math.inf
        self._until_refresh = _READY
        self._in_a_row = 0

    def loud(self, norm: float) -> bool:
        """Whether a norm stands out from the recent ones, if not by enough for a reflex."""
        return norm > self._loud

    def judge(self, norm: float, *, clipped: bool) -> str | None:
        """The reflex that skips this update; None lets it through.

        Args:
            norm: Of the gradients, before clipping.
            clipped: The session clips them, so a spike does no harm.
        """
        if norm - norm != 0.0:  # NaN or infinite
            return NON_FINITE if self._terms.skip_non_finite else None
        if clipped:
            self._remember(norm)
            return None
        if norm > self._limit:
            self._in_a_row += 1
            if self._in_a_row <= self._terms.max_skips_in_a_row:
                return SPIKE
        else:
            self._in_a_row = 0
        self._remember(norm)
        return None

    def reset(self) -> None:
        """A branch began or an intervention changed the run: the baseline no longer holds."""
        self._recent.clear()
        self._limit = math.inf
        self._loud = math.inf
        self._until_refresh = _READY
        self._in_a_row = 0

    def _remember(self, norm: float) -> None:
        self._recent.append(norm)
        self._until_refresh -= 1
        if self._until_refresh:
            return
        self._until_refresh = _REFRESH
        median = sorted(self._recent)[len(self._recent) // 2]
        self._loud = _LOUD * median
        factor = self._terms.skip_spike_factor
        if factor > 0:
            self._limit = factor * median
