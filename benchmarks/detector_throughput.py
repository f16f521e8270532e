"""How many rows a second the whole detector bank reads, as JSON on stdout.

Run: ``python benchmarks/detector_throughput.py [rows]``
"""

import json
import random
import sys
import time

from autopilot.detectors import DetectorBank
from autopilot.schema import Row
from autopilot.triage import Triage


def small(count: int) -> list[Row]:
    rng = random.Random(0)
    return [
        Row(s, {"loss": 2.0 + 3.0 / (1 + 0.01 * s) + 0.02 * rng.gauss(0, 1), "lr": 1e-3})
        for s in range(count)
    ]


def full(count: int) -> list[Row]:
    rng = random.Random(0)
    rows = []
    for row in small(count):
        values = {
            **row.values,
            "lr_planned": 1e-3,
            "grad_norm": 0.5 + 0.05 * rng.random(),
            "param_norm": 20.0 + 1e-4 * row.step,
            "clipped": 0.0,
            "update_skipped": 0.0,
            "batch_digest": float(rng.getrandbits(32)),
            "step_time": 0.01 + 0.001 * rng.random(),
            "data_wait": 0.001,
        }
        if row.step % 10 == 0:
            values |= {"update_ratio": 0.02, "second_moment_staleness": 1.3, "eps_share": 0.01}
        rows.append(row._replace(values=values))
    return rows


def rate(rows: list[Row], *, triage: bool) -> float:
    """Rows a second, the best of three."""
    best = float("inf")
    for _ in range(3):
        bank = DetectorBank()
        judge = Triage(bank.loss, bank.grad)
        began = time.perf_counter()
        if triage:
            for row in rows:
                judge.update(row, bank.update(row))
        else:
            for row in rows:
                bank.update(row)
        best = min(best, time.perf_counter() - began)
    return len(rows) / best


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    result = {}
    for name, rows in (("loss_and_lr", small(count)), ("default_metrics", full(count))):
        result[name] = {
            "bank_rows_per_s": round(rate(rows, triage=False)),
            "bank_and_triage_rows_per_s": round(rate(rows, triage=True)),
        }
    json.dump({"rows": count, **result}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
