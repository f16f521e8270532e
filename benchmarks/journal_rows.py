"""What a row costs to write and to read, and the memory it needs: prints one line of JSON.

``cpu_us_per_row`` is processor time of the writing thread in the journal alone; the rate includes
the making of the rows.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from autopilot.journal import Journal
from autopilot.schema import Row


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(path: Path, total: int, batch: int) -> dict[str, float]:
    with Journal.create(path, run_id="bench", name="bench") as journal:
        peaks = []
        spent = 0.0
        begun = flushed = time.perf_counter()
        for first in range(0, total, batch):
            rows = [row(step) for step in range(first, first + batch)]
            at = time.thread_time()
            journal.append_rows(rows)
            if time.perf_counter() - flushed >= 1:
                journal.flush()
                flushed = time.perf_counter()
            spent += time.thread_time() - at
            if first in (total // 4 // batch * batch, (total - 1) // batch * batch):
                peaks.append(peak_mib())
        journal.flush()
        elapsed = time.perf_counter() - begun
        begun = time.perf_counter()
        journal.series("loss", "main", 1000)
        picture = time.perf_counter() - begun
        begun = time.perf_counter()
        journal.rows("main", last=512)
        tail = time.perf_counter() - begun
        begun = time.perf_counter()
        read = sum(1 for _ in journal.all_rows())
        reading = time.perf_counter() - begun
    return {
        "rows": total,
        "batch": batch,
        "rows_per_second": round(total / elapsed),
        "cpu_us_per_row": round(spent / total * 1e6, 2),
        "rows_read_per_second": round(read / reading),
        "series_of_1000_points_s": round(picture, 4),
        "last_512_rows_s": round(tail, 4),
        "bytes_per_row": round(path.stat().st_size / total, 1),
        "peak_mib_at_a_quarter": round(peaks[0], 1),
        "peak_mib_at_the_end": round(peaks[-1], 1),
    }


def row(step: int) -> Row:
    x = 1 / (step + 1)
    values = {"loss": 2 + x, "grad_norm": 1.1 + x, "lr": 3e-4 * x, "step_time": 0.1 + x / 7}
    values["update_ratio"] = 1e-3 + x / 3
    return Row(step, values, time=1.7e9 + step * 0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=1, help="rows handed over at a time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder) / "j.sqlite", arguments.rows, arguments.batch)))
