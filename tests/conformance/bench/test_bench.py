"""The benchmarks: what they measure in a process of its own, what they say, and that they run."""

import io
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conformance.bench.footprint import evict, footprint, process_bytes
from conformance.bench.summary import Row, show
from tests.support import ROOT

MODEL = ROOT / "fixtures" / "models" / "e2b-mini"


@pytest.mark.slow
def test_a_footprint_is_that_of_a_contender() -> None:
    resident, mapped = (footprint(name, MODEL, "float32") for name in ("mlx_impl", "mlx_impl mapped"))
    assert resident.keys() == mapped.keys()
    table = 320 * 10 * 16 * 4  # V * N * P in float32
    # What a read leaves over (bf16 before it is widened) varies a little.
    assert resident["active_bytes"] - mapped["active_bytes"] == pytest.approx(table, rel=0.05)
    assert resident["kv_bytes"] == mapped["kv_bytes"] > 0
    assert 0 < resident["active_bytes"] <= resident["prefill_peak_bytes"]
    assert resident["load_s"] > 0


@pytest.mark.slow
def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^mlx_impl: .*no such file"):
        footprint("mlx_impl", tmp_path, "float32")


def test_memory_of_this_process() -> None:
    before = process_bytes()
    # New pages: the allocator may give memory again that an earlier test returned.
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        for _ in range(64):
            held.write(os.urandom(1 << 20))
        grown = process_bytes()["anonymous"] - before["anonymous"]
        assert len(held) * 0.9 < grown < len(held) * 1.5


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no call for it on this system")
def test_files_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is asked to, of every tensor file as a whole: what it does then is its own."""
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json"):
        (tmp_path / name).write_bytes(os.urandom(1 << 12))
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *rest: asked.append(rest))
    assert evict(tmp_path)
    assert asked == [(0, 0, os.POSIX_FADV_DONTNEED)] * 2


def row(name: str, **more: Any) -> Row:
    facts = {"conformance": "L2: 4 of 4", "model": "m", "dtype": "bfloat16", "device": "gpu", "chip": "M9"}
    facts |= {"power": "battery", "versions": {"mlx": "1.0"}}
    given: dict[str, Any] = {"group": "decode", "name": name, "median_s": 0.0123, "p95_s": 0.02, "ratio": None}
    return Row(**(given | more), facts=facts)


@pytest.mark.parametrize("width", [60, 200])
def test_the_summary_names_what_was_measured_and_where(width: int) -> None:
    out = io.StringIO()
    show([row("mlx_impl", ratio=1.5), row("mlx_lm")], Console(file=out, width=width))
    text = " ".join(out.getvalue().replace("│", " ").split())
    assert "1.50 x" in text
    assert "12.3 ms" in text
    for said in (
        "mlx_impl: L2: 4 of 4",
        "mlx_lm: L2: 4 of 4",
        "m, bfloat16, on the gpu of M9, power: battery; mlx 1.0",
    ):
        assert said in text


@pytest.mark.slow
def test_the_benchmarks_run(tmp_path: Path) -> None:
    """One of them for one contender, so that it takes seconds: with its conformance, its JSON and the summary."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "conformance/bench/bench_generation.py",
        "-k",
        "ttft and 128-mlx_lm",
    ]
    options = ["-o", "python_functions=bench_*", "--bench-model", "e2b-mini", f"--benchmark-json={tmp_path / 'b.json'}"]
    environment = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    environment["GEMMA4_CACHE"] = str(tmp_path / "cache")
    ended = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert "mlx_lm: L2 and L3 of e2b-mini and e4b-mini:" in ended.stdout
    (told,) = json.loads((tmp_path / "b.json").read_text())["benchmarks"]
    assert told["group"] == "TTFT, 128 tokens"
    assert told["extra_info"]["conformance"].endswith("none failed")
    assert len(told["stats"]["data"]) == 5
    assert [path.name for path in (tmp_path / "cache" / "bench").iterdir()] == ["e2b-mini"]
