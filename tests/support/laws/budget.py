"""A share of the profile's examples, for tests of which there are many."""

from __future__ import annotations

from hypothesis import settings


def share(divisor: int, *, least: int = 6) -> settings:
    """Settings with a fraction of `max_examples` of the profile in force, and at least `least`."""
    profile = settings.default
    assert profile is not None
    return settings(max_examples=max(least, profile.max_examples // divisor))
