"""One event loop, on a thread of its own, for everything that models are asked.

A library that keeps its connections for the next call keeps them with their loop; with a loop for
every call they break (langchain issue 35783). On its own thread it serves callers that have a loop
and such that have none, and a caller stops waiting when the time is up, whatever hangs.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_within(seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of the work.

    Raises:
        TimeoutError: It was not there in time; the work is cancelled and not waited for.
    """
    future = asyncio.run_coroutine_threadsafe(work, _loop(os.getpid()))
    try:
        return future.result(seconds)
    except TimeoutError:
        future.cancel()
        raise


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The loop of this process; a fork has its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="language-model", daemon=True).start()
    return loop
