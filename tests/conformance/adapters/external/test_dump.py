"""Answers in a file of their own, larger than what memory should hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conformance.adapters.external.dump import DumpAdapter
from conformance.judging.judge import Judge
from gemma4_contract import FixtureError, tensors
from gemma4_contract.tensors import Array
from tests.support.installed import FIXTURES
from tests.support.runs import run_command

ROPE, FORWARD = "module/rope/default-at-0", "forward/e2b-mini/uniform-l19/no-cache"
GIB, MIB = 2**30, 2**20
STATUS = Path("/proc/self/status")
_COMMAND = """
import re, sys
from pathlib import Path
from conformance.cli import main
import conformance.reporting.page.page, conformance.diagnosis.whole_report, conformance.adapters.external.dump
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
base = peak()
try:
    main()
finally:
    print(base, peak(), file=sys.stderr)
"""


def golden_of(case_id: str) -> dict[str, Array]:
    return {name: x.astype(np.float64) for name, x in FIXTURES.golden(FIXTURES.case(case_id)).items()}


def write_with_a_hole(path: Path, answers: dict[str, Array], size: int) -> None:
    """The tensors, and after them one of zeros that takes no room on the disk."""
    small = tensors.encode(answers)
    start = 8 + int.from_bytes(small[:8], "little")
    end = len(small) - start
    header = json.loads(small[8:start])
    header["nobody asks"] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + small[start:])
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end + size)


def memory_of(*arguments: str) -> tuple[int, str]:
    """Bytes that the command needs beyond the interpreter with its imports, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=True
    )
    base, peak = (int(figure) for figure in done.stderr.split()[-2:])
    return (peak - base) * 1024, done.stdout


@pytest.mark.skipif(not STATUS.exists(), reason="the peak is read from /proc")
def test_a_file_of_one_gigabyte_is_checked_within_256_megabytes(tmp_path: Path) -> None:
    dump = tmp_path / "dump.safetensors"
    write_with_a_hole(dump, golden_of(FORWARD), GIB)
    assert dump.stat().st_size > GIB
    used, said = memory_of("check", FORWARD, str(dump), "--profile", "f64")
    assert said.startswith(f"{FORWARD}: pass; ")
    assert used < 256 * MIB, f"{used / MIB:.0f} MiB"


def test_the_taps_of_a_case_are_found_by_its_id(tmp_path: Path) -> None:
    dump = tmp_path / "dump.safetensors"
    tensors.write(dump, {f"{ROPE}/{name}": x for name, x in golden_of(ROPE).items()})
    judge = Judge(FIXTURES, DumpAdapter(dump), "f64")
    assert judge.judge(ROPE).outcome == "pass"
    assert (judge.judge(FORWARD).outcome, judge.judge(FORWARD).note) == ("skip", "not in the file")
    tensors.write(dump, {f"{ROPE}/{name}": x * 1.001 for name, x in golden_of(ROPE).items()})
    assert Judge(FIXTURES, DumpAdapter(dump), "f64").judge(ROPE).outcome == "fail"


@pytest.mark.parametrize("data", [b"", b"12345678", (2**40).to_bytes(8, "little"), b"\x02" + bytes(7) + b"[]"])
def test_a_broken_file_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "dump.safetensors").write_bytes(data)
    with pytest.raises(FixtureError, match="expected a complete safetensors file"):
        DumpAdapter(tmp_path / "dump.safetensors")


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FixtureError, match="got No such file or directory"):
        DumpAdapter(tmp_path / "none.safetensors")
    with pytest.raises(FixtureError, match="got Is a directory"):
        DumpAdapter(tmp_path)


def test_reading_one_by_one_gives_what_reading_at_once_gives(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    written = {name: np.arange(6).reshape(2, 3).astype(dtype) for name, dtype in tensors.DTYPES.items()}
    tensors.write(path, written | {"scalar": np.array(2.5), "empty": np.zeros((0, 3))})
    lazily, at_once = tensors.read_lazily(path), tensors.read(path)
    assert lazily.keys() == at_once.keys()
    for name, x in at_once.items():
        read = lazily[name].whole()
        assert (read.dtype, read.shape) == (x.dtype, x.shape)
        assert np.array_equal(read, x)


@pytest.mark.slow
def test_a_family_in_one_file_of_one_gigabyte_is_judged_within_256_megabytes(tmp_path: Path) -> None:
    dump, report = tmp_path / "family.safetensors", tmp_path / "report"
    family = {
        f"{case.id}/{name}": x
        for case in FIXTURES.cases()
        if case.id.startswith("forward/") and not case.profiles
        for name, x in golden_of(case.id).items()
    }
    write_with_a_hole(dump, family, GIB)
    used, said = memory_of(
        "run", "--dump", str(dump), "--profile", "f64", "--levels", "L2-L3", "--report", str(report), "--json"
    )
    counts = json.loads(said)["levels"]
    assert set(counts["L2"]) == set(counts["L3"]) == {"pass"}
    assert counts["L2"]["pass"] + counts["L3"]["pass"] == len({name.rpartition("/")[0] for name in family})
    assert used < 256 * MIB, f"{used / MIB:.0f} MiB"


def test_one_wrong_answer_of_a_file_is_found(tmp_path: Path) -> None:
    dump = tmp_path / "dump.safetensors"
    tensors.write(dump, {f"{ROPE}/{name}": x * 1.01 for name, x in golden_of(ROPE).items()})
    done = run_command("run", "--dump", str(dump), "--profile", "f64", "--cases", "module/rope/*")
    assert done.returncode == 1
    assert f"{ROPE}: " in done.stdout
    both = run_command("run", "--dump", str(dump), "--once", "x")
    assert (both.returncode, both.stderr.count("\n")) == (2, 1)
    none = run_command("run", "--dump", str(tmp_path / "none"))
    assert (none.returncode, none.stderr.count("\n")) == (2, 1)
    assert "got No such file or directory" in none.stderr
