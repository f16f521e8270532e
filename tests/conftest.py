"""What holds for every test."""

import os

import pytest
import torch
from hypothesis import settings

# A change is judged by the same examples each time; HYPOTHESIS_PROFILE=new draws others.
collect_ignore_glob = ["e2e/scripts/*"]
"""Programs, and no modules: importing one runs it."""

settings.register_profile("same", derandomize=True)
settings.register_profile("new", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Workers side by side, each with a thread a core, would wait for one another."""
    torch.set_num_threads(1)
