"""The first line of a report that no run wrote."""

from __future__ import annotations

from conformance.reporting.jsonl import RunLine
from gemma4_contract import Fixtures
from gemma4_contract.judged import judged_digest
from tests.support.installed import FIXTURES


def run_line(fixtures: Fixtures = FIXTURES, *, impl: str = "fake", profile: str = "f32") -> RunLine:
    """A run of an implementation that does not exist."""
    return RunLine(
        impl=impl,
        implementation="fake",
        version="1",
        language="Python",
        device="none",
        profile=profile,
        fixtures=judged_digest(fixtures),
        products_error=None,
    )
