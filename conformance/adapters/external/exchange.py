"""The request file and the answer file of a port in another process."""

from __future__ import annotations

from pathlib import Path

from conformance.adapters.base import Array, PortFault, Request
from gemma4_contract import FixtureError, protocol, tensors


def write_request(request: Request, seq: int, inputs: Path, out: Path) -> protocol.Run:
    """Write the inputs of a case, if it has any; return the line that asks for the answer in the file `out`."""
    if request.inputs:
        tensors.write(inputs, request.inputs)
    return protocol.Run(
        seq=seq,
        case=request.case,
        kind=request.kind,
        profile=request.profile,
        plan=request.plan,
        params=dict(request.params),
        inputs=str(inputs) if request.inputs else None,
        want=list(request.want),
        out=str(out),
    )


def read_answer(out: Path) -> dict[str, Array]:
    """The tensors of the file that was asked for; PortFault if it is missing, a link, or broken."""
    if out.is_symlink() or not out.is_file():
        raise PortFault(f"the port said ok and wrote no file {out.name}")
    try:
        return dict(tensors.read(out))
    except FixtureError as error:
        said = f"got {error.got}, expected {error.expected}"
        raise PortFault(f"the port wrote a broken file {out.name}: {said}") from None
