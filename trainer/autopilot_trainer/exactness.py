"""Finding out whether going back is exact here: a few steps are trained twice and compared.

What a session holds it brings back to the last bit. What the script keeps for itself (a running
mean in a Python variable, a generator of its own, a counter that bends the loss) it cannot know of;
then the second time differs from the first, and this says where that begins.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autopilot.schema import Row
from autopilot.schema.metrics import LOSS
from autopilot_trainer.state import TrainingState
from autopilot_trainer.training import Training

EXACTNESS_FILE = "exactness.json"
WARM_UP = 3
"""Steps before the first state: an optimizer has its moments then, a loader its workers."""


@dataclass(frozen=True)
class Difference:
    """Where the second time differs first.

    Attributes:
        step: The step that differs.
        where: Batch, loss, or the tensor, by name.
        size: The largest difference; NaN where the values cannot be subtracted.
    """

    step: int
    where: str
    size: float

    def story(self) -> str:
        """One line for people."""
        return f"step {self.step} differs the second time: {self.where}, by {self.size:.3g}"


@dataclass
class _Trained:
    """What a step was and led to."""

    batch: Any
    loss: float
    state: TrainingState


@dataclass
class ExactnessCheck:
    """Trains ``steps`` steps, goes back, trains them again; the loop does not notice.

    Args:
        steps: How many; at least 1.
        run_dir: Where the verdict is written.
    """

    training: Training
    steps: int
    run_dir: Path
    _loss: float = math.nan
    _first: list[_Trained] = field(default_factory=list)

    def watching(self, observe: Callable[[Row], None]) -> Callable[[Row], None]:
        """The same, but the loss of every row is seen here too."""

        def seen(row: Row) -> None:
            self._loss = row.values.get(LOSS, self._loss)
            observe(row)

        return seen

    def batches(self) -> Iterator[Any]:
        """The loop's batches; when they end, the verdict is written.

        None is where the data end too soon, or cannot be gone back in.

        Yields:
            The warm-up's batches, then those of the steps to compare, then the same again.
        """
        for _ in range(WARM_UP):
            yield from self._next()
        begin = self.training.state()
        for _ in range(self.steps):
            for batch in self._next():
                kept = _detached(batch)
                yield batch
                self._first.append(_Trained(kept, self._loss, self.training.state()))
        if len(self._first) < self.steps or not self.training.seekable:
            return
        self.training.go_to(begin)
        for first in self._first:
            found = None
            for batch in self._next():
                found = _difference("batch", first.batch, batch)
                yield batch
                found = found or self._compared(first)
            if found is not None:
                self._conclude(Difference(first.state.step, *found))
                return
        self._conclude(None)

    def _next(self) -> Iterator[Any]:
        assert self.training.stream is not None, "the check is made of a loop's batches"
        try:
            yield next(self.training.stream)
        except StopIteration:
            return

    def _compared(self, first: _Trained) -> tuple[str, float] | None:
        again = self.training.state()
        names = [name for name, _ in self.training.model.named_parameters()]
        optimizer = dict(zip(names, first.state.optimizer[1], strict=False))
        pairs = (
            ("loss", first.loss, self._loss),
            ("model", first.state.model, again.model),
            ("optimizer", optimizer, dict(zip(names, again.optimizer[1], strict=False))),
            ("others", first.state.others, again.others),
            ("generators", first.state.generators, again.generators),
        )
        return next((d for where, a, b in pairs if (d := _difference(where, a, b))), None)

    def _conclude(self, difference: Difference | None) -> None:
        text = (
            f"{len(self._first)} steps trained twice gave the same, bit for bit"
            if difference is None
            else difference.story()
        )
        verdict = {"exact": difference is None, "steps": len(self._first), "text": text}
        (self.run_dir / EXACTNESS_FILE).write_text(json.dumps(verdict) + "\n")
        self.training.plane.note("note", {"text": f"exactness: {text}"})


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_detached(item) for item in value]
    return value


def _difference(where: str, a: Any, b: Any) -> tuple[str, float] | None:
    """The first place in which two nested values differ, with the size; NaN equals NaN."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape == b.shape and torch.equal(a.nan_to_num(), b.detach().cpu().nan_to_num()):
            return None
        if a.shape != b.shape or not a.numel():
            return where, math.nan
        return where, float((a.double() - b.detach().cpu().double()).abs().max())
    if isinstance(a, dict) and isinstance(b, dict):
        items = [(f"{where} {key}", a.get(key), b.get(key)) for key in [*a, *(b.keys() - a.keys())]]
        return next((d for item in items if (d := _difference(*item))), None)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return next((d for i, (x, y) in pairs if (d := _difference(f"{where} {i}", x, y))), None)
    if a == b or (a != a and b != b):
        return None
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return where, abs(a - b) if numbers else math.nan
