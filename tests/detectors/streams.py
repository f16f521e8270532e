"""Synthetic rows for the tests of detectors and triage."""

import random
from collections.abc import Iterable, Iterator

from autopilot.ports import Detector
from autopilot.schema import Finding, Row
from autopilot.schema.metrics import (
    ACCURACY,
    BATCH_DIGEST,
    DATA_WAIT,
    DEAD_FRACTION,
    EPS_SHARE,
    GRAD_NORM,
    LOSS,
    LR,
    LR_PLANNED,
    MAX_ATTENTION_LOGIT,
    PARAM_NORM,
    SECOND_MOMENT_STALENESS,
    STEP_TIME,
    UPDATE_RATIO,
    UPDATE_SKIPPED,
    VAL_LOSS,
)


def healthy(seed: int = 0, rows: int = 600, first: int = 0) -> Iterator[Row]:
    """A healthy small run with every metric: heavy-tailed noise, warm-up and decay."""
    rng = random.Random(seed)
    norm = 20.0
    for i in range(rows):
        step = first + i
        # Student's t with four degrees of freedom: the tails that healthy logs have
        tail = rng.gauss(0, 1) / (sum(rng.gauss(0, 1) ** 2 for _ in range(4)) / 4) ** 0.5
        planned = 1e-3 * min(1.0, (step + 1) / 30) * (1.0 - 0.5 * i / rows)
        norm += 0.01
        values = {
            LOSS: (2.0 + 2.6 / (1 + 0.03 * step)) * (1 + 0.01 * tail),
            GRAD_NORM: 0.5 * 2.718 ** (0.2 * rng.gauss(0, 1)),
            LR: planned,
            LR_PLANNED: planned,
            PARAM_NORM: norm,
            UPDATE_SKIPPED: 0.0,
            BATCH_DIGEST: float(rng.getrandbits(32)),
            STEP_TIME: 0.01 * (1 + 0.1 * rng.random()),
            DATA_WAIT: 0.001 * (1 + rng.random()),
        }
        if step % 10 == 0 or step < 50:
            values[UPDATE_RATIO] = 0.02 + 0.01 * rng.random()
            values[SECOND_MOMENT_STALENESS] = 1.2 + 0.1 * rng.gauss(0, 1)
            values[EPS_SHARE] = 0.01
            values[MAX_ATTENTION_LOGIT] = 2.0 + 0.02 * step
            values[DEAD_FRACTION] = 0.17
        if step % 50 == 0:
            values[VAL_LOSS] = (2.05 + 2.6 / (1 + 0.03 * step)) * (1 + 0.003 * rng.gauss(0, 1))
            values[ACCURACY] = 0.9 - 0.5 / (1 + 0.01 * step) + 0.01 * rng.gauss(0, 1)
        yield Row(step, values)


def changed(row: Row, **values: float) -> Row:
    """The row with other values."""
    return row._replace(values={**row.values, **values})


def sick(seed: int = 0) -> list[Row]:
    """A run in which, one after the other, most things go wrong."""
    rows = list(healthy(seed, 900))
    for i, row in enumerate(rows):
        loss = row.values[LOSS]
        if 200 <= i < 260:
            rows[i] = changed(row, loss=2 * loss, grad_norm=9.0, second_moment_staleness=5.0)
        elif 400 <= i < 410:
            rows[i] = changed(row, lr=30 * row.values[LR])
        elif 450 <= i < 480:
            rows[i] = changed(row, update_skipped=1.0, grad_norm=float("inf"))
        elif 500 <= i < 540:
            rows[i] = changed(row, data_wait=0.05, step_time=0.07, batch_digest=float(i % 3))
        elif 600 <= i < 640:
            rows[i] = changed(row, update_ratio=0.3, eps_share=0.9, max_attention_logit=400.0)
        elif 700 <= i < 720:
            rows[i] = changed(row, dead_fraction=0.7, param_norm=900.0, val_accuracy=0.01)
        elif i >= 800:
            rows[i] = changed(row, loss=loss * (1 + 0.01 * (i - 800)), update_ratio=0.0)
    return rows


def run(detector: Detector, rows: Iterable[Row]) -> list[Finding]:
    return [finding for row in rows if (finding := detector.update(row)) is not None]


def shape(findings: Iterable[Finding]) -> list[tuple[str, str, int]]:
    """What must not change with the unit of the loss."""
    return [(finding.kind, finding.tier, finding.step) for finding in findings]
