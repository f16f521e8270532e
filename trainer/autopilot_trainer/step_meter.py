"""What is measured of a step around the optimizer: its time, its wait for data, its batch."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from autopilot.schema import metrics
from autopilot_trainer.data import batch_digest
from autopilot_trainer.label_entropy import LabelEntropy

_DIGEST_EVERY = 4


class StepMeter:
    """Measures one loop's steps.

    Args:
        on_fault: Told of every fault of ours.

    Attributes:
        away: Seconds since the last step that belong to none: held, paused, evaluating.
    """

    def __init__(self, on_fault: Callable[[str], None]) -> None:
        self._on_fault = on_fault
        self._wait: float | None = None
        self._digest: float | None = None
        self._batches = 0
        self._labels = LabelEntropy()
        self._label_entropy: float | None = None
        self.restart()

    def restart(self) -> None:
        """The next step begins now."""
        self._measured_at = time.perf_counter()
        self.away = 0.0

    def next(self, batches: Iterator[Any]) -> Any:
        """The next batch, timed, and at times remembered by its digest."""
        began = time.perf_counter()
        batch = next(batches)
        self._wait = time.perf_counter() - began
        self._digest = None if self._batches % _DIGEST_EVERY else self._read(batch_digest, batch)
        if self._labels.wanted:
            self._label_entropy = self._read(self._labels.add, batch)
        self._batches += 1
        return batch

    def into(self, row: dict[str, float], tokens: int | None) -> None:
        """Add what was measured of the step that ends now.

        Args:
            row: The step's metrics.
            tokens: Trained on in it, where the loop says so.
        """
        now = time.perf_counter()
        elapsed = now - self._measured_at - self.away
        self._measured_at, self.away = now, 0.0
        row[metrics.STEP_TIME] = elapsed
        if self._wait is not None:
            row[metrics.DATA_WAIT] = self._wait
        if self._digest is not None:
            row[metrics.BATCH_DIGEST] = self._digest
        if self._label_entropy is not None:
            row[metrics.LABEL_ENTROPY], self._label_entropy = self._label_entropy, None
        if tokens is not None and elapsed > 0:
            row[metrics.TOKENS_PER_SECOND] = tokens / elapsed

    def _read(self, measure: Callable[[Any], float | None], batch: Any) -> float | None:
        try:
            return measure(batch)
        except Exception as error:  # the run goes on without it
            self._on_fault(f"reading a batch: {error!r}")
            return None
