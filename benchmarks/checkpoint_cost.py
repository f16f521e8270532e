"""What a saved state costs the training: seconds for which the loop stands still, per save.

A snapshot in memory, a durable checkpoint (written, checksummed, fsynced, renamed) and a bare
``torch.save`` of the same state, in turns; models of 1 and 100 million parameters with Adam's
moments, so three times as many numbers each. Prints JSON; the ratio is to ``torch.save``. Run:

    python benchmarks/checkpoint_cost.py [--millions 1 100] [--rounds 5] [--folder DIR]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from autopilot_trainer.checkpoints import CheckpointStore
from autopilot_trainer.snapshots import SnapshotRing
from autopilot_trainer.state import Capture

_WIDTH = 1000
_ROOM = 1 << 36


def trained(millions: int) -> Capture:
    """A model of so many million parameters that has made one step."""
    model = nn.Sequential(*(nn.Linear(_WIDTH, _WIDTH, bias=False) for _ in range(millions)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    model(torch.randn(1, _WIDTH)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return Capture(model, optimizer, {})


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(millions: int, rounds: int, folder: Path) -> dict[str, object]:
    capture = trained(millions)
    store = CheckpointStore(folder / f"{millions}m")
    ring = SnapshotRing(1, _ROOM)
    plain = folder / "plain.pt"

    def snapshot() -> None:
        ring.clear()
        ring.add(capture.take(1, None), "main")

    def checkpoint() -> None:
        store.save(capture.take(1, None), "main", None, keep=set())

    def bare() -> None:
        state = capture.take(1, None)
        torch.save({"model": state.model, "optimizer": state.optimizer}, plain)

    works = {"snapshot": snapshot, "checkpoint": checkpoint, "torch_save": bare}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    took = {name: statistics.median(found) for name, found in times.items()}
    return {
        "parameters": millions * _WIDTH * _WIDTH,
        "state_mib": round(plain.stat().st_size / 2**20, 1),
        "seconds": {name: round(value, 4) for name, value in took.items()},
        "over_torch_save": {
            name: round(took[name] / took["torch_save"], 2) for name in ("snapshot", "checkpoint")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    for millions in given.millions:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            print(json.dumps(measure(millions, given.rounds, Path(folder))))


if __name__ == "__main__":
    main()
