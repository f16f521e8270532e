"""CPU time of a training loop under a Session over the same loop without one.

All threads of the process count. What the training thread spends is compared in turns: the variants
run in one process, a tenth of a second each, in changing order, each with a model and optimizer of
its own, and each is compared with the bare loop of its own round. What the other threads spend (the
control plane's, the journal's writing, the API's) is counted beforehand over a stretch in which
that session runs alone, once it is past its first steps, which are watched more closely, and added.
The ratio of bare to bare shows what is noise. What else runs on the machine only adds to a time, so
the fastest tenth of each variant's rounds is compared as well ("when quiet"). Run:

    python benchmarks/step_overhead.py [--rounds 300] [--steps 10] [--alone 1500]
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
from typing import Any

import torch
from torch import nn

from autopilot_trainer import Session

STEP_SECONDS = 0.010
SETTLE_SECONDS = 1.2
WARM_UP_ROUNDS = 15
FIRST_STEPS = 600
_TRIES, _LOOKS = 3, 40

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
    """Batch size at which a step takes 10 ms, as the median of many short looks tells."""
    size = 8
    for _ in range(_TRIES):
        size = max(1, round(size * STEP_SECONDS / seconds_of_a_step(size)))
    return size


def seconds_of_a_step(size: int) -> float:
    turn = bare(Loop(size))
    return statistics.median([measure(turn, 5) / 5 for _ in range(_LOOKS)][_LOOKS // 4 :])


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
    """CPU seconds of the training thread for so many steps."""
    began = time.thread_time()
    for _ in range(steps):
        turn()
    return time.thread_time() - began


def beside(turn: Turn, steps: int) -> float:
    """CPU seconds a step of all other threads, what they still do afterwards included."""
    for _ in range(FIRST_STEPS):
        turn()
    time.sleep(SETTLE_SECONDS)
    began = time.process_time() - time.thread_time()
    for _ in range(steps):
        turn()
    time.sleep(SETTLE_SECONDS)
    return (time.process_time() - time.thread_time() - began) / steps


def take_turns(turns: dict[str, Turn], rounds: int, steps: int) -> dict[str, list[float]]:
    """Per variant the training thread's seconds a step in each round."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    order = list(turns)
    shuffle = random.Random(0).shuffle
    for number in range(WARM_UP_ROUNDS + rounds):
        shuffle(order)
        for name in order:
            used = measure(turns[name], steps) / steps
            if number >= WARM_UP_ROUNDS:
                times[name].append(used)
    return times


def compare(times: dict[str, list[float]], others: dict[str, float]) -> dict[str, object]:
    """Per variant its ratio to the bare loop, the other threads' share included."""
    step = statistics.median(times["bare"])
    quiet = {name: statistics.quantiles(used, n=10)[0] for name, used in times.items()}
    found: dict[str, object] = {"step_ms": round(1e3 * step, 3)}
    for name in [name for name in times if name != "bare"]:
        ratios = [t / b for t, b in zip(times[name], times["bare"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        other = others.get(name, 0.0)
        undisturbed = quiet[name] - quiet["bare"] + other
        found[name] = {
            "ratio": round(middle + other / step, 4),
            "quartiles": [round(low + other / step, 4), round(high + other / step, 4)],
            "ratio_when_quiet": round(1 + undisturbed / quiet["bare"], 4),
            "microseconds_a_step": round(1e6 * (step * (middle - 1) + other), 1),
            "microseconds_when_quiet": round(1e6 * undisturbed, 1),
            "microseconds_of_other_threads": round(1e6 * other, 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--alone", type=int, default=1500, help="steps of a session by itself")
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = calibrate()
    turns = {"bare": bare(Loop(size)), "bare again": bare(Loop(size))}
    others: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings: dict[str, dict[str, Any]] = {
            "telemetry off": {"telemetry": False, "snapshot_every": 0},
            "default": {},
        }
        for name, chosen in settings.items():
            loop = Loop(size)
            session = Session(loop.model, loop.optimizer, run_dir=folder / name, **chosen)
            turns[name] = under(stack.enter_context(session), loop)
            others[name] = beside(turns[name], given.alone)
        print(json.dumps(compare(take_turns(turns, given.rounds, given.steps), others), indent=2))


if __name__ == "__main__":
    main()
