"""What was fetched, or the reason why a test is skipped."""

from __future__ import annotations

import pytest

from conformance.fetch import cache
from mlx_impl.prompt import TEMPLATES


@pytest.fixture(scope="session")
def real_templates() -> dict[str, str]:
    """The published templates by name."""
    missing = [name for name in TEMPLATES if not cache.template_path(name).is_file()]
    if missing:
        pytest.skip(f"run gemma4-conformance fetch templates ({', '.join(missing)} not fetched)")
    return {name: cache.template_path(name).read_bytes().decode() for name in TEMPLATES}
