"""Record every scenario once and label it: ``python -m autopilot_evals.recorder DIR``.

The same machine and version of torch give the same files.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from autopilot_evals.recorder.recording import record
from autopilot_evals.scenarios import SCENARIOS

SEED = 11
"""One that no agent was tuned on."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Record into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS))
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    names = given.scenario or list(SCENARIOS)
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        for path in pool.map(partial(record, given.folder, given.seed), names):
            print(path)


if __name__ == "__main__":
    main()
