"""Torch on one thread."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """On products this small torch's threads wait for each other, on a busy machine for most of the time."""
    torch = sys.modules.get("torch")  # not imported for tests that do without
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
