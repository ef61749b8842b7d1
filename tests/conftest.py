"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread_for_tiny_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Models of 200 k parameters lose more by waiting for a second thread than they win, most of all on a busy
    machine."""
    threads = torch.get_num_threads()
    if request.module.__name__.rpartition(".")[2].startswith("test_videollama2"):
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
