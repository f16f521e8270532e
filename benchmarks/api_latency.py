"""How long the control API takes to answer while a run trains, and what its clients cost the run.

A real session trains in a process of its own; the clients ask at a steady rate, each over its own
connection: together as often as the API answers one role in the long run, so that none is refused.
Milliseconds per call, and steps a second with and without them. Prints JSON. Run:

    python benchmarks/api_latency.py [--clients 50] [--seconds 10]
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autopilot.client import connect
from autopilot_trainer import Session
from autopilot_trainer.api.rates import REQUESTS

_CALLS = 0.9 * REQUESTS[1]
"""Calls a second of all clients together."""


def train(folder: str, stop: Any) -> None:
    """Steps of about 10 ms, until told to stop."""
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches = [torch.randn(256, 256) for _ in range(8)]
    with Session(model, optimizer, run_dir=folder) as session:
        for batch in session.batches(batches, steps=10**9):
            loss = (model(batch) - batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            session.report(loss=loss)
            if stop.is_set():
                return


def ask(folder: str, begin: float, until: float, pause: float, found: list[float]) -> None:
    with connect(folder, "viewer", "bench") as run:
        while (due := begin + len(found) * pause) < until:
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.perf_counter()
            run.info()
            found.append(time.perf_counter() - began)


def steps_a_second(folder: str, seconds: float) -> float:
    with connect(folder, "viewer", "bench") as run:
        first, began = run.info().step, time.monotonic()
        time.sleep(seconds)
        return (run.info().step - first) / (time.monotonic() - began)


def measure(folder: str, clients: int, seconds: float) -> dict[str, Any]:
    alone = steps_a_second(folder, seconds)
    times: list[list[float]] = [[] for _ in range(clients)]
    begin, pause = time.monotonic(), clients / _CALLS
    until = begin + seconds + 1.0
    threads = [
        threading.Thread(target=ask, args=(folder, begin + i / _CALLS, until, pause, found))
        for i, found in enumerate(times)
    ]
    for thread in threads:
        thread.start()
    asked = steps_a_second(folder, seconds)
    for thread in threads:
        thread.join()
    calls = sorted(t for found in times for t in found)
    cuts = statistics.quantiles(calls, n=100)
    return {
        "clients": clients,
        "calls_a_second": round(len(calls) / (seconds + 1.0), 1),
        "milliseconds": {"median": round(1e3 * cuts[49], 2), "p99": round(1e3 * cuts[98], 2)},
        "steps_a_second": {"alone": round(alone, 2), "asked": round(asked, 2)},
        "step_time_over_alone": round(alone / asked, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    with tempfile.TemporaryDirectory() as above:
        folder = str(Path(above) / "run")
        process = spawn.Process(target=train, args=(folder, stop))
        process.start()
        while not (Path(folder) / "run.json").exists():
            time.sleep(0.1)
        time.sleep(2.0)
        print(json.dumps(measure(folder, given.clients, given.seconds), indent=2))
        stop.set()
        process.join()


if __name__ == "__main__":
    main()
