"""Hypothesis profiles: `ci` (the default) is quick and always the same, `night` long and always new. Fetched files.

`pytest tests/laws --hypothesis-profile night` draws up to 1000 examples a test.
"""

import gc
import os
from pathlib import Path
from typing import Any

# Before torch is imported, here and in the processes of tests: on products this small its threads wait for each other,
# and a test takes ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of processes would each compile the packages again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from hypothesis import HealthCheck, Phase, settings

from conformance.fetch import cache

# An example runs whole decoders: how long it takes says nothing, and tracing them to explain a failure takes minutes.
_SLOW = (HealthCheck.too_slow,)
_PHASES = tuple(phase for phase in Phase if phase is not Phase.explain)

settings.register_profile(
    "ci",
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    phases=_PHASES,
    suppress_health_check=_SLOW,
)
settings.register_profile(
    "night", max_examples=1000, deadline=None, phases=_PHASES, print_blob=True, suppress_health_check=_SLOW
)
settings.load_profile("ci")


def pytest_collection_finish() -> None:
    """Leave out of every search for garbage what is there to stay: torch, and thousands of tests."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process of `-n` whole files for most of a run: what the tests of a file share is then made once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture(scope="session")
def tokenizer_file() -> Path:
    """The published tokenizer.json, where it has been fetched."""
    if not cache.tokenizer_path().is_file():
        pytest.skip("the real tokenizer is not in the cache: run gemma4-conformance fetch tokenizer")
    return cache.tokenizer_path()


@pytest.fixture(scope="session")
def real_templates() -> dict[str, str]:
    """The published templates by name."""
    from mlx_impl.chat.prompt import TEMPLATES

    missing = [name for name in TEMPLATES if not cache.template_path(name).is_file()]
    if missing:
        pytest.skip(f"run gemma4-conformance fetch templates ({', '.join(missing)} not fetched)")
    return {name: cache.template_path(name).read_bytes().decode() for name in TEMPLATES}
