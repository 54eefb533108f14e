"""The mapped table in the eyes of the operating system: few pages are read, and two processes share them."""

import gc
import json
import re
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_impl.checkpoint.load import load
from tests.support import quantized_checkpoints as q

SMAPS = Path("/proc/self/smaps")
ROWS, MIB = 2**16, 2**20
TABLE = "model.embed_tokens_per_layer.weight"
_PROGRAM = """
import sys
import mlx.core as mx
import mlx_impl
decoder = mlx_impl.load(sys.argv[1], "bfloat16", ple="mapped")
mx.eval(decoder(mx.array([[2, 17, 42, 95, 7, 33, 64, 1]])))
print("ready", flush=True)
sys.stdin.readline()
"""

pytestmark = pytest.mark.skipif(not SMAPS.exists(), reason="the figures are read from /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose table of per-layer embeddings is far larger than the rest: 40 MiB."""
    folder = tmp_path_factory.mktemp("mapped")
    config = q.E2B | {"vocab_size_per_layer_input": ROWS}
    small = q.plain(q.E2B)
    table = mx.tile(small[TABLE], (ROWS // small[TABLE].shape[0] + 1, 1))[:ROWS]
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), small | {TABLE: table})
    assert table.nbytes >= 40 * MIB
    return folder


def figures(pid: int, file: Path) -> dict[str, int]:
    """Bytes of a process's mapping of a file, by the names of the kernel."""
    maps = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text())
    (mapped,) = [text for text in maps if str(file) in text.partition("\n")[0]]
    return {name: int(size) * 1024 for name, size in re.findall(r"^(\w+): +(\d+) kB", mapped, re.MULTILINE)}


def test_two_processes_share_the_few_pages_that_are_read(folder: Path) -> None:
    file = folder / "model.safetensors"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        seen = [figures(process.pid, file) for process in processes]
    finally:
        for process in processes:
            process.communicate("\n", timeout=60)
    for mapping in seen:
        assert mapping["Size"] >= 40 * MIB
        assert 0 < mapping["Rss"] <= MIB  # eight rows of eight pages at most
        assert mapping["Shared_Clean"] + mapping["Shared_Dirty"] == mapping["Rss"]  # dirty: just written, not by us
        assert mapping["Pss"] == mapping["Rss"] // 2
        assert mapping["Anonymous"] == 0


def test_the_table_takes_no_memory_of_mlx(folder: Path) -> None:
    ids = mx.array([[2, 17, 42, 95]])
    held = []
    for ple in ("resident", "mapped"):
        gc.collect()  # what earlier tests left must not be let go between the two readings
        before = mx.get_active_memory()
        decoder = load(folder, "bfloat16", ple=ple)  # type: ignore[arg-type]
        mx.eval(decoder(ids))
        held.append(mx.get_active_memory() - before)
        del decoder
    resident, mapped = held
    assert resident > 40 * MIB
    assert mapped < 4 * MIB
