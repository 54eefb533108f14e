"""The fixtures as one archive for a release; its bytes are the same wherever it is made."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from gemma4_contract.files import write_atomic
from gemma4_contract.store import Fixtures
from gemma4_contract.sums import SUMS


def write_archive(fixtures: Fixtures, path: Path, version: str) -> None:
    """Write a tar.gz of all files under `gemma4-fixtures-<version>/`, sorted, without times and owners."""
    top = f"gemma4-fixtures-{version}"
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for file in sorted([*fixtures.files(), fixtures.root / SUMS]):
            data = file.read_bytes()
            entry = tarfile.TarInfo(f"{top}/{file.relative_to(fixtures.root).as_posix()}")
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    write_atomic(path, packed.getvalue())
