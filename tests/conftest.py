"""Hypothesis profiles: `ci` (the default) is quick and always the same, `night` is long and always new.

`pytest tests/laws --hypothesis-profile night` draws up to 1000 examples a test.
"""

from hypothesis import HealthCheck, Phase, settings

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
