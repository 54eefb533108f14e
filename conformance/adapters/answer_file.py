"""The file in which a port in another process answers."""

from __future__ import annotations

from pathlib import Path

from conformance.adapters.base import Array, PortFault
from reference.format import FixtureError, tensors


def read_answer(out: Path) -> dict[str, Array]:
    """The tensors of the very file that was asked for. PortFault where it is missing, a link, or broken."""
    if out.is_symlink() or not out.is_file():
        raise PortFault(f"the port said ok and wrote no file {out.name}")
    try:
        return dict(tensors.read(out))
    except FixtureError as error:
        said = f"got {error.got}, expected {error.expected}"
        raise PortFault(f"the port wrote a broken file {out.name}: {said}") from None
