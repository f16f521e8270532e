"""What holds for every test."""

import os
import sys

import pytest
from hypothesis import settings

collect_ignore_glob = ["e2e/scripts/*"]
"""Programs, and no modules: importing one runs it."""

_SLOW_SECONDS = 3 * 3600

# Hundreds of processes load the same files: each is compiled once, whatever the shell says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A change is judged by the same examples each time; HYPOTHESIS_PROFILE=new draws others.
settings.register_profile("same", derandomize=True)
settings.register_profile("new", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_xdist_auto_num_workers() -> int:
    """Many tests wait for processes half of their time."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked slow may take its time."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_SECONDS))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Workers side by side, each with a thread a core, would wait for one another."""
    import torch  # only where tests are run: the process that hands them out has no use for it

    torch.set_num_threads(1)
