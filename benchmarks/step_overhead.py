"""CPU time of a training loop under a Session over the same loop without one.

All threads of the process count, the control plane's and the API's too. The variants run
interleaved, several times, in one process; the ratio of bare to bare shows the noise. Run:

    python benchmarks/step_overhead.py [--steps 600] [--repeats 7]
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from autopilot_trainer import Session

STEP_SECONDS = 0.010


class Loop:
    """A small transformer whose step takes about 10 ms on one core."""

    def __init__(self, repeats: int) -> None:
        torch.manual_seed(0)
        layers = [nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True) for _ in range(2)]
        self.model = nn.Sequential(*layers, nn.Linear(64, 64))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.batch = torch.randn(repeats, 32, 64)

    def step(self, batch: torch.Tensor) -> torch.Tensor:
        loss = (self.model(batch) - batch).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss


def calibrate() -> int:
    """Batch size at which a step takes about 10 ms."""
    size = 8
    while True:
        loop = Loop(size)
        for _ in range(5):
            loop.step(loop.batch)
        began = time.process_time()
        for _ in range(10):
            loop.step(loop.batch)
        took = (time.process_time() - began) / 10
        if took > 0.8 * STEP_SECONDS:
            return size
        size = max(size + 1, min(size * 2, int(size * STEP_SECONDS / took)))


def bare(loop: Loop, steps: int) -> float:
    began = time.process_time()
    for _ in range(steps):
        float(loop.step(loop.batch).detach())
    return time.process_time() - began


def under_session(loop: Loop, steps: int, folder: Path, *, telemetry: bool) -> float:
    batches = [loop.batch] * 16
    kwargs = {} if telemetry else {"snapshot_every": 0}
    with Session(
        loop.model, loop.optimizer, run_dir=folder, telemetry=telemetry, **kwargs
    ) as session:
        began = time.process_time()
        for batch in session.batches(batches, steps=steps):
            session.report(loss=loop.step(batch))
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    loop = Loop(calibrate())
    bare(loop, 50)
    times: dict[str, list[float]] = {"bare": [], "bare again": [], "off": [], "default": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(given.repeats):
            times["bare"].append(bare(loop, given.steps))
            for name in ("off", "default"):
                where = Path(folder) / f"{name}-{repeat}"
                used = under_session(loop, given.steps, where, telemetry=name == "default")
                times[name].append(used)
            times["bare again"].append(bare(loop, given.steps))
    step = statistics.median(times["bare"]) / given.steps
    print(json.dumps({"step_ms": round(1e3 * step, 3), **summary(times, given.steps)}, indent=2))


def summary(times: dict[str, list[float]], steps: int) -> dict[str, dict[str, float]]:
    """Per variant the median ratio to the two bare runs around it, and microseconds a step."""
    base = [(a + b) / 2 for a, b in zip(times["bare"], times["bare again"], strict=True)]
    found = {}
    for name in ("bare again", "off", "default"):
        over = times["bare"] if name == "bare again" else base
        ratios = [t / b for t, b in zip(times[name], over, strict=True)]
        extra = [1e6 * (t - b) / steps for t, b in zip(times[name], over, strict=True)]
        found[name] = {
            "ratio": round(statistics.median(ratios), 4),
            "microseconds_a_step": round(statistics.median(extra), 1),
            "least_ratio": round(min(ratios), 4),
            "greatest_ratio": round(max(ratios), 4),
        }
    return found


if __name__ == "__main__":
    main()
