"""The type of functions that report the progress of long work."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""It is called with the number of finished steps, the number of all steps, and the name of the next step."""
