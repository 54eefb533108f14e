"""Time to load a checkpoint and memory of one contender in a process of its own.

`python -m conformance.bench.footprint NAME DIR DTYPE` prints it as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROMPT, TOKENS = 512, 8


def footprint(name: str, folder: Path, dtype: str) -> dict[str, Any]:
    """Seconds of the load, and bytes: MLX's (after it, and at the peak of prefill and decoding), and the process's.

    Raises RuntimeError with the last words of the process if it failed.
    """
    command = [sys.executable, "-m", "conformance.bench.footprint", name, str(folder), dtype]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{name}: {ended.stderr.strip().splitlines()[-1]}")
    measured: dict[str, Any] = json.loads(ended.stdout)
    return measured


def evict(folder: Path) -> bool:
    """Ask the system to drop a checkpoint from its file cache; False if it has no call for that (macOS)."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # pages that are not written yet cannot be evicted
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def process_bytes() -> dict[str, int]:
    """Resident memory of this process: `anonymous`, its own pages, and `mapped`, pages of files."""
    import psutil

    process = psutil.Process()
    memory = process.memory_info()
    own = memory.rss - memory.shared if hasattr(memory, "shared") else process.memory_full_info().uss
    return {"anonymous": own, "mapped": memory.rss - own}


def main() -> None:
    """Measure this very process."""
    name, folder, dtype = sys.argv[1:]
    print(json.dumps(dict(_measured(name, Path(folder), dtype))))


def _measured(name: str, folder: Path, dtype: str) -> Iterator[tuple[str, Any]]:
    import mlx.core as mx

    from conformance.bench.contenders import CONTENDERS
    from conformance.bench.prompt import prompt

    before, make = process_bytes(), CONTENDERS[name]
    mx.eval(mx.zeros(1) + 1)  # the device is awake
    start = time.perf_counter()
    contender = make(folder, dtype)
    yield "load_s", time.perf_counter() - start
    yield "active_bytes", mx.get_active_memory()
    yield "load_peak_bytes", mx.get_peak_memory()
    for kind, count in process_bytes().items():
        yield f"process_{kind}_bytes", count - before[kind]
    mx.reset_peak_memory()
    caches, token = contender.prefill(prompt(PROMPT))
    yield "prefill_peak_bytes", mx.get_peak_memory()
    mx.reset_peak_memory()
    for _ in range(TOKENS):
        mx.eval(token := contender.step(token, caches))
    yield "decode_peak_bytes", mx.get_peak_memory()
    yield "kv_bytes", contender.cache_bytes(caches)


if __name__ == "__main__":
    main()
