"""What the work of a suite is spread over: processes of this machine, or Ray.

Work is a function that can be pickled, over items by key. Results come in the order in which they
are done; which engine did them changes nothing about them.
"""

import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, Protocol, TypeVar

from autopilot.errors import AutopilotError, BadInput
from autopilot_evals.suites.results import code_digest

Item = TypeVar("Item")
Result = TypeVar("Result")

ENGINES = ("processes", "ray")
"""What the command line knows them by."""
_ADDRESS = "RAY_ADDRESS"
_DIED = (
    "a process died at its work, of too little memory perhaps; fewer --jobs need less, and --out "
    "keeps what is done"
)


class Engine(Protocol):
    """Spreads work."""

    def each(
        self, work: Callable[[Item], Result], items: Mapping[str, Item]
    ) -> Iterator[tuple[str, Result]]:
        """Do the work on every item, and give each result with its key as it is done.

        Where the iteration is given up, or an item fails, what has not begun is dropped.

        Raises:
            AutopilotError: What an item raised; of any other error one line that names the key.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """So many processes of this machine; with one, or for one item, this very process."""

    jobs: int

    def each(
        self, work: Callable[[Item], Result], items: Mapping[str, Item]
    ) -> Iterator[tuple[str, Result]]:
        if self.jobs == 1 or len(items) < 2:
            for key, item in items.items():
                yield key, _told(key, work, item)
            return
        with ExitStack() as stack:
            pool = ProcessPoolExecutor(
                self.jobs, mp_context=get_context("spawn"), initializer=_end_with_parent
            )
            # Interrupted, or after a failure, only what is under way is waited for.
            stack.callback(pool.shutdown, cancel_futures=True)
            futures = {pool.submit(_told, key, work, item): key for key, item in items.items()}
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool as error:
                    raise AutopilotError(_DIED) from error
                yield futures[future], result


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None, "only a worker does this"

    def watch() -> None:
        parent.join()
        os._exit(1)  # its work is nobody's any more, and may never end by itself

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


@dataclass(frozen=True)
class Ray:
    """A Ray cluster: the one that ``RAY_ADDRESS`` names, or one of this machine for the while.

    Its machines need the code that evaluates, and the same paths to whatever the work reads.

    Args:
        jobs: Items under way at once; None takes one for each core that Ray has.
    """

    jobs: int | None

    def each(
        self, work: Callable[[Item], Result], items: Mapping[str, Item]
    ) -> Iterator[tuple[str, Result]]:
        if not items:
            return
        ray = _ray()
        with ExitStack() as stack:
            # Where results are printed, Ray would tell of workers that died.
            stack.enter_context(redirect_stdout(sys.stderr))
            stack.callback(ray.shutdown)  # and with it whatever is under way
            _start(ray, self.jobs)
            far, code = ray.remote(_far), code_digest()
            most = self.jobs or int(ray.cluster_resources().get("CPU", 1))
            left = iter(items.items())
            running = {far.remote(code, k, work, v): k for k, v in islice(left, most)}
            while running:
                done = ray.wait(list(running), num_returns=1)[0][0]
                result = _fetched(ray, done)
                key = running.pop(done)
                running |= {far.remote(code, k, work, v): k for k, v in islice(left, 1)}
                yield key, result


def make_engine(name: str, jobs: int | None) -> Engine:
    """An engine by name.

    Args:
        name: One of :data:`ENGINES`.
        jobs: Items under way at once; None takes one for each core.

    Raises:
        BadInput: There is none of that name, or what it needs is not installed.
    """
    if name == "processes":
        return Processes(jobs or os.cpu_count() or 1)
    if name == "ray":
        _ray()
        return Ray(jobs)
    raise BadInput(f"--engine {name}: no such engine; known: {', '.join(ENGINES)}")


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise BadInput(
            "--engine ray: Ray is not installed; pip install 'training-autopilot[ray]'"
        ) from error
    return ray


def _start(ray: Any, jobs: int | None) -> None:
    """Connect to a cluster, or start one of this machine that reports to nobody."""
    address = os.environ.get(_ADDRESS)
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        cores = jobs or os.cpu_count() or 1
        ray.init("local", num_cpus=cores, include_dashboard=False, **_QUIET)
        return
    try:
        _knock(address)
        ray.init(address, **_QUIET)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise BadInput(f"{_ADDRESS}={address}: no Ray cluster answers there: {error}") from error


def _knock(address: str) -> None:
    """Ray itself would wait for minutes where nobody is."""
    place = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if place is not None:
        socket.create_connection((place[1], int(place[2])), timeout=_PATIENCE).close()


_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
_PATIENCE = 10.0


def _far(code: str, key: str, work: Callable[[Item], Result], item: Item) -> Result:
    """On a worker: what other code finds would be kept as if it were found by ours."""
    if code != code_digest():
        raise AutopilotError(
            "a worker of the Ray cluster has other code of training-autopilot than the process "
            "that evaluates; install the same on all machines"
        )
    return _told(key, work, item)


def _told(key: str, work: Callable[[Item], Result], item: Item) -> Result:
    """Do it; an error that is not meant for users says at least what it came up in."""
    try:
        return work(item)
    except AutopilotError:
        raise
    except Exception as error:
        raise AutopilotError(f"{key}: {type(error).__name__}: {error}") from error


def _fetched(ray: Any, done: Any) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:  # its own text is the worker's whole traceback
        cause = error.cause
        if isinstance(cause, AutopilotError):
            raise cause from error
        raise AutopilotError(f"a worker of the Ray cluster failed: {cause}") from error
    except ray.exceptions.RayError as error:
        raise AutopilotError(f"{_DIED}: {type(error).__name__}") from error
