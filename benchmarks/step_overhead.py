"""CPU time of a training loop under a Session over the same loop without one.

All threads of the process count: the control plane's, the journal's writing and the API's too. The
variants take turns in one process, a fifth of a second each, in changing order, each with a model
and optimizer of its own, and each is compared with the bare loop of its own round. The ratio of
bare to bare shows what is noise. What else runs on the machine only adds to a time, so the fastest
tenth of each variant's rounds is compared as well ("when quiet"). Run:

    python benchmarks/step_overhead.py [--rounds 150] [--steps 20]
"""

import argparse
import contextlib
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from autopilot_trainer import Session

STEP_SECONDS = 0.010
SETTLE_SECONDS = 0.12
WARM_UP_ROUNDS = 15

Turn = Callable[[], None]


class Loop:
    """A small transformer; the batch size decides how long its step takes."""

    def __init__(self, batch_size: int) -> None:
        torch.manual_seed(0)
        layers = [nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True) for _ in range(2)]
        self.model = nn.Sequential(*layers, nn.Linear(64, 64))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.batches = [torch.randn(batch_size, 32, 64) for _ in range(64)]

    def step(self, batch: torch.Tensor) -> torch.Tensor:
        loss = (self.model(batch) - batch.roll(1, 1)).square().mean()  # learns, and never settles
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def calibrate() -> int:
    """Batch size at which a step takes about 10 ms."""
    size = 4
    while True:
        loop = Loop(size)
        for _ in range(5):
            loop.step(loop.batches[0])
        began = time.process_time()
        for _ in range(20):
            loop.step(loop.batches[0])
        took = (time.process_time() - began) / 20
        if took > 0.9 * STEP_SECONDS:
            return size
        size = max(size + 1, min(2 * size, int(size * STEP_SECONDS / took)))


def bare(loop: Loop) -> Turn:
    batches = itertools.cycle(loop.batches)

    def turn() -> None:
        float(loop.step(next(batches)))

    return turn


def under(session: Session, loop: Loop) -> Turn:
    batches = session.batches(loop.batches, steps=10**9)

    def turn() -> None:
        session.report(loss=loop.step(next(batches)))

    return turn


def measure(turn: Turn, steps: int) -> float:
    """CPU seconds of all threads for so many steps, their journaling included."""
    began = time.process_time()
    for _ in range(steps):
        turn()
    time.sleep(SETTLE_SECONDS)  # costs no CPU itself; the control thread catches up meanwhile
    return time.process_time() - began


def compare(turns: dict[str, Turn], rounds: int, steps: int) -> dict[str, object]:
    """Per variant the median ratio to the bare loop of the same round."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    order = list(turns)
    shuffle = random.Random(0).shuffle
    for number in range(WARM_UP_ROUNDS + rounds):
        shuffle(order)
        for name in order:
            used = measure(turns[name], steps)
            if number >= WARM_UP_ROUNDS:
                times[name].append(used)
    step = statistics.median(times["bare"]) / steps
    quiet = {name: statistics.quantiles(used, n=10)[0] for name, used in times.items()}
    found: dict[str, object] = {"step_ms": round(1e3 * step, 3)}
    for name in turns:
        if name == "bare":
            continue
        ratios = [t / b for t, b in zip(times[name], times["bare"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = {
            "ratio": round(middle, 4),
            "quartiles": [round(low, 4), round(high, 4)],
            "ratio_of_sums": round(sum(times[name]) / sum(times["bare"]), 4),
            "ratio_when_quiet": round(quiet[name] / quiet["bare"], 4),
            "microseconds_a_step": round(1e6 * step * (middle - 1), 1),
            "microseconds_when_quiet": round(1e6 * (quiet[name] - quiet["bare"]) / steps, 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = calibrate()
    off, default = Loop(size), Loop(size)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bookkeeping = Session(
            off.model, off.optimizer, run_dir=folder / "off", telemetry=False, snapshot_every=0
        )
        telemetry = Session(default.model, default.optimizer, run_dir=folder / "default")
        turns = {
            "bare": bare(Loop(size)),
            "bare again": bare(Loop(size)),
            "telemetry off": under(stack.enter_context(bookkeeping), off),
            "default": under(stack.enter_context(telemetry), default),
        }
        print(json.dumps(compare(turns, given.rounds, given.steps), indent=2))


if __name__ == "__main__":
    main()
