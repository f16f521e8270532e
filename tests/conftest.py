"""What holds for every test."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Workers side by side, each with a thread a core, would wait for one another."""
    torch.set_num_threads(1)
