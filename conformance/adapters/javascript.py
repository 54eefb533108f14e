"""The port in plain JavaScript under `ports/`, which runs in Node without packages."""

from __future__ import annotations

from pathlib import Path

from conformance.adapters.external.process import ProcessAdapter

PORT = Path(__file__).resolve().parents[2] / "ports" / "javascript" / "adapter.mjs"
"""The port in a checkout; a wheel holds no ports."""


class JavaScriptAdapter(ProcessAdapter):
    """`node ports/javascript/adapter.mjs`, driven by lines; PortFault if there is no Node or no checkout."""

    def __init__(self) -> None:
        """Start it."""
        super().__init__(["node", str(PORT)])
