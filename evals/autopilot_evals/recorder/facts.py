"""What a sound training was made to meet: the batches that were spoilt on purpose, the plan."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch

from autopilot.schema import Row
from autopilot.schema.metrics import LR_PLANNED
from autopilot_evals.scenarios import Batch
from autopilot_evals.scenarios.benign.outliers import Sprinkled
from autopilot_evals.scenarios.data import Spoilt

Span = tuple[int, int]
"""First and last step."""


def spoilt(batches: Sequence[Batch], steps: int) -> list[Span]:
    """Steps in a row whose batch is not the one that the good stream gives there."""
    if isinstance(batches, Spoilt):
        good = batches.good
    elif isinstance(batches, Sprinkled):
        good = batches.batches
    else:
        return []
    return runs_of(
        cursor + 1
        for cursor in range(steps)
        if not torch.equal(batches[cursor].targets, good[cursor].targets)
    )


def climbs(rows: Sequence[Row]) -> list[Span]:
    """Steps in a row at which the planned rate rises, once it has fallen before."""
    planned = [(row.step, row.values[LR_PLANNED]) for row in rows if LR_PLANNED in row.values]
    fell, rising = False, list[int]()
    for (_, before), (step, after) in pairwise(planned):
        fell = fell or after < before
        if fell and after > before:
            rising.append(step)
    return runs_of(rising)


def runs_of(steps: Iterable[int], apart: int = 1) -> list[Span]:
    """First and last of the steps that lie no more than so many apart."""
    spans: list[Span] = []
    for step in steps:
        if spans and step - spans[-1][1] <= apart:
            spans[-1] = (spans[-1][0], step)
        else:
            spans.append((step, step))
    return spans
