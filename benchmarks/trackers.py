"""What logging the same metrics costs the training thread, with Autopilot and with other trackers.

Every row has the same eight metrics, made beforehand. Microseconds of the calling thread's own time
per row, and processor time of all threads and of the children that a tracker starts.
A tracker that is not installed is left out, and said so. Prints JSON. Run:

    pip install tensorboard mlflow-skinny wandb trackio
    python benchmarks/trackers.py [--rows 5000]
"""

import argparse
import contextlib
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

Values = dict[str, float]
Log = Callable[[int, Values], object]


def rows(count: int) -> list[Values]:
    rng = random.Random(0)
    names = ("loss", "lr", "grad_norm", "param_norm", "step_time", "data_wait", "clipped", "tokens")
    return [{name: rng.random() for name in names} for _ in range(count)]


@contextmanager
def autopilot(folder: Path) -> Iterator[Log]:
    """A control plane with its thread: journal, detectors and triage besides."""
    from autopilot.control import ControlPlane
    from autopilot.journal import Journal
    from autopilot.policy import read_policy
    from autopilot.recording.side import RecordedSide
    from autopilot.schema import Row
    from autopilot_trainer.control_thread import ControlThread

    journal = Journal.create(folder / "journal.sqlite", run_id="bench", name="bench")
    plane = ControlPlane(journal, read_policy(None), RecordedSide(None))
    plane.start({})
    thread = ControlThread(plane)
    thread.start()
    yield lambda step, values: plane.observe(Row(step, values, time=time.time()))
    thread.stop()
    plane.end("ended", "")
    plane.close()


@contextmanager
def tensorboard(folder: Path) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(step: int, values: Values) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    yield log
    writer.close()


@contextmanager
def mlflow(folder: Path) -> Iterator[Log]:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow as tracker

    tracker.set_tracking_uri((folder / "mlruns").as_uri())
    tracker.set_experiment("bench")
    with tracker.start_run():
        yield lambda step, values: tracker.log_metrics(values, step=step)


@contextmanager
def wandb_offline(folder: Path) -> Iterator[Log]:
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    with wandb.init(mode="offline", dir=str(folder), project="bench") as run:
        yield lambda step, values: run.log(values, step=step)


@contextmanager
def trackio(folder: Path) -> Iterator[Log]:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio as tracker

    tracker.init(project="bench", embed=False)
    yield lambda step, values: tracker.log(values, step=step)
    tracker.finish()


TRACKERS: dict[str, Callable[[Path], AbstractContextManager[Log]]] = {
    "autopilot": autopilot,
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "wandb_offline": wandb_offline,
    "trackio": trackio,
}


def processor_seconds() -> float:
    own, children = (
        resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measure(tracker: Callable[[Path], AbstractContextManager[Log]], values: list[Values]) -> Values:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        context = tracker(Path(folder))
        log = context.__enter__()
        thread, all_of_it = time.thread_time(), processor_seconds()
        for step, row in enumerate(values):
            log(step, row)
        thread = time.thread_time() - thread
        context.__exit__(None, None, None)
        all_of_it = processor_seconds() - all_of_it
    return {
        "thread_us_a_row": round(1e6 * thread / len(values), 2),
        "processor_us_a_row": round(1e6 * all_of_it / len(values), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    given = parser.parse_args()
    values = rows(given.rows)
    found: dict[str, object] = {"rows": given.rows}
    for name, tracker in TRACKERS.items():
        with contextlib.redirect_stdout(None):
            try:
                found[name] = measure(tracker, values)
            except ImportError as error:
                found[name] = f"not installed: {error.name}"
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
