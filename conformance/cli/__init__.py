"""`gemma4-conformance`: the command.

Exit codes: 0 conforms, 1 does not, 2 bad input or usage, 3 environment or adapter broke.
"""

from __future__ import annotations

from conformance.adapters.registry import AdapterUnavailable, BadOption
from conformance.cli import bugs, check, diagnose, explain, fetch, fixtures, graph, prompts, report, run, self_test  # noqa: F401 (each adds commands)
from conformance.cli.app import BAD_INPUT, ENVIRONMENT, app, stop
from conformance.fetch.errors import FetchError
from gemma4_contract import FixtureError

__all__ = ["main"]


def main() -> None:
    """Run the command; every error that a user can cause is one line on stderr."""
    try:
        app()
    except (FixtureError, BadOption) as error:
        stop(str(error), BAD_INPUT)
    except (AdapterUnavailable, FetchError) as error:
        stop(str(error), ENVIRONMENT)
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}; choose a place that can be written", BAD_INPUT)
