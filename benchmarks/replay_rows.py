"""Rows a second that a replay reads on one core, and its memory: prints JSON.

The control plane with all detectors, triage and guard over a recording of a calm run, beside bare
iteration and the detectors alone over the same rows in the same process; from memory, and from a
run's own journal. Processor time, the best round.
Rounds are short, because what else runs on the machine only ever adds to a time.
Memory is the peak of a process that replays so many rows and does nothing else.

Run: ``python benchmarks/replay_rows.py [--rows 20000] [--long 1000000]``
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from autopilot.detectors import DetectorBank
from autopilot.journal import Journal
from autopilot.recording import RecordedRun, read_run
from autopilot.schema import Row
from autopilot.triage import Triage
from autopilot_agents.rules import RuleAgent
from autopilot_evals.replay import replay

_ROUNDS = 25
_BATCH = 1000


def rows(count: int, *, full: bool) -> Iterator[Row]:
    """A calm run: loss and learning rate alone, or all that a session measures by default."""
    rng = random.Random(0)
    for step in range(1, count + 1):
        loss = 2.0 + 3.0 / (1 + 0.01 * step) + 0.02 * rng.gauss(0, 1)
        values = {"loss": loss, "lr": 1e-3}
        if full:
            values |= {
                "lr_planned": 1e-3,
                "grad_norm": 0.5 + 0.05 * rng.random(),
                "param_norm": 20.0 + 1e-4 * (step % 1000),
                "clipped": 0.0,
                "update_skipped": 0.0,
                "step_time": 0.01 + 0.001 * rng.random(),
                "data_wait": 0.001,
            }
            if step % 4 == 0:
                values["batch_digest"] = float(rng.getrandbits(32))
            if step % 10 == 0:
                values |= {"update_ratio": 0.02, "second_moment_staleness": 1.3, "eps_share": 0.01}
        yield Row(step, values, time=1.7e9 + 0.01 * step)


def best(*works: Callable[[], object]) -> list[float]:
    """Seconds of processor time of the fastest round of each, taken in turns."""
    found = [float("inf")] * len(works)
    for _ in range(_ROUNDS):
        for i, work in enumerate(works):
            began = time.process_time()
            work()
            found[i] = min(found[i], time.process_time() - began)
    return found


def detect(recorded: RecordedRun) -> None:
    """Detectors and triage alone, without a control plane around them."""
    bank = DetectorBank()
    triage = Triage(bank.loss, bank.grad)
    for row in recorded.rows():
        triage.update(row, bank.update(row))


def speed(recorded: RecordedRun, count: int) -> dict[str, float]:
    bare, detectors, whole = best(
        lambda: deque(recorded.rows(), maxlen=0),
        lambda: detect(recorded),
        lambda: replay(recorded, RuleAgent()),
    )
    return {
        "rows": count,
        "bare_iteration_rows_per_s": round(count / bare),
        "detectors_alone_rows_per_s": round(count / detectors),
        "replay_rows_per_s": round(count / whole),
        "replay_over_detectors": round(whole / detectors, 2),
    }


def written(folder: Path, count: int) -> RecordedRun:
    """The same run as a session records it."""
    with Journal.create(folder / "journal.sqlite", run_id="bench", name="bench") as journal:
        held: list[Row] = []
        for row in rows(count, full=True):
            held.append(row)
            if len(held) == _BATCH:
                journal.append_rows(held)
                held.clear()
        journal.append_rows(held)
    return read_run(folder)


def peak_mib(count: int) -> float:
    """Peak memory of a process that replays so many rows, none of them held."""
    command = [sys.executable, __file__, "--peak-of", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def print_peak(count: int) -> None:
    recorded = RecordedRun(name="long", run_id="long", rows=lambda: rows(count, full=True))
    replay(recorded, RuleAgent())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--long", type=int, default=1_000_000, help="rows for the memory")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print_peak(arguments.peak_of)
        return
    # Memory first: a process begins with the peak of the one that started it.
    tenth = arguments.long // 10
    few, many = peak_mib(tenth), peak_mib(arguments.long)
    result: dict[str, object] = {
        "memory": {
            f"peak_mib_over_{tenth}_rows": round(few, 1),
            f"peak_mib_over_{arguments.long}_rows": round(many, 1),
            "ratio": round(many / few, 3),
        }
    }
    for name, full in (("loss_and_lr", False), ("default_metrics", True)):
        held = list(rows(arguments.rows, full=full))
        recorded = RecordedRun(name=name, run_id=name, rows=lambda held=held: iter(held))
        result[name] = speed(recorded, arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        journaled = written(Path(folder), arguments.rows)
        result["journal_default_metrics"] = speed(journaled, arguments.rows)
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
