"""The check of stored fixtures reports each fault."""

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma4_contract import tensors
from reference.export.check import check
from tests.support.exports import BY_HAND, GOLDEN, NORM, quiet, snapshot


def is_by_hand(name: str) -> bool:
    return name.startswith(tuple(f"{folder}/" for folder in BY_HAND))


def test_check_reports_each_fault_and_nothing_else(small: Path) -> None:
    before = snapshot(small)
    clean = check(small, quiet)
    assert clean.faults == []
    assert clean.equal + clean.close == len(before) - sum(is_by_hand(name) for name in before) - 1
    assert clean.equal > 20
    assert snapshot(small) == before

    golden = small / "cases" / GOLDEN / "expected_f32.safetensors"
    arrays = dict(tensors.read(golden))
    arrays["model.norm"] = arrays["model.norm"] * np.float32(1 + 1e-5)
    tensors.write(golden, arrays)
    module = small / "cases" / NORM / "expected.safetensors"
    tensors.write(module, {"y": tensors.read(module)["y"] * (1 + 1e-9)})
    last_bit = small / "cases/module/mlp/dense/expected.safetensors"
    tensors.write(last_bit, {name: value * (1 + 2**-51) for name, value in tensors.read(last_bit).items()})
    renamed = small / "cases/module/softcap/cap-12/expected.safetensors"
    tensors.write(renamed, {"z": tensors.read(renamed)["y"]})
    nan = small / "cases/module/mlp/dense/expected_f32.safetensors"
    tensors.write(nan, {name: value if name == "act" else value * np.nan for name, value in tensors.read(nan).items()})
    shutil.rmtree(small / "cases/module/softcap/cap-30")
    shutil.copytree(small / "cases" / NORM, small / "cases/module/rms-norm/extra")
    inputs = small / "cases/module/rms-norm/large/inputs.safetensors"
    tensors.write(inputs, {name: value + np.float32(1) for name, value in tensors.read(inputs).items()})
    description = small / "cases/module/rms-norm/zeros/case.json"
    description.write_text(description.read_text().replace("A row of zeros", "A row of ones"))

    found = dict(fault.split(": ", 1) for fault in check(small, quiet).faults)
    limit, beside = "(relative RMS), expected at most 1e-", "cases/module/"
    assert found.pop(f"cases/{GOLDEN}/expected_f32.safetensors").startswith("model.norm differs by 1.0e-05 ")
    assert found.pop(f"cases/{NORM}/expected.safetensors") == f"y differs by 1.0e-09 {limit}12"
    assert found.pop(f"{beside}softcap/cap-12/expected.safetensors") == "other tensors"
    assert found.pop(f"{beside}mlp/dense/expected_f32.safetensors").startswith("y differs by nan ")
    assert found.pop(f"{beside}rms-norm/large/inputs.safetensors") == "other bytes"
    assert found.pop(f"{beside}rms-norm/zeros/case.json") == "another description"
    assert set(found.values()) == {"not made", "not stored"}
    names = {name.removeprefix(beside).rpartition("/")[0]: what for name, what in found.items()}
    assert names == {"softcap/cap-30": "not stored", "rms-norm/extra": "not made"}
    assert len(found) == 8  # four files of a module case each
