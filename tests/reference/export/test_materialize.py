"""Weights by rule as checkpoints: whole, in shards, quantised, interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import mlx_impl
from gemma4_contract import checkpoint
from reference import loading, weights
from reference.export.errors import ExportError
from reference.export.materialize import materialize
from reference.models import MODELS, Model
from reference.streaming import matrix
from tests.support.wide_models import WIDE

MODEL = MODELS["e2b-mini"]
EXPECTED = weights.weights(MODEL.id, MODEL.config, mini=False)


def write(folder: Path, model: Model = MODEL, **options: Any) -> list[str]:
    told: list[str] = []
    given: dict[str, Any] = {"shards": 1, "bits": None, "progress": lambda *what: told.append(what[-1])}
    materialize(model, folder, **given | options)
    return told


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a matrix takes several."""
    monkeypatch.setattr(matrix, "BLOCK_BYTES", 1 << 14)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_checkpoint_holds_the_rule_s_weights(shards: int, tmp_path: Path) -> None:
    told = write(tmp_path, shards=shards)
    assert told[-1] == "done"
    assert len(told) == len(EXPECTED) + 1
    assert len(list(tmp_path.glob("*.safetensors"))) == shards
    config, read = loading.load(tmp_path)
    assert config == MODEL.config
    assert read.keys() == EXPECTED.keys()
    assert all(np.array_equal(read[name].astype(np.float64), EXPECTED[name]) for name in EXPECTED)
    stored = mlx_impl.load(tmp_path).tensors()
    assert all(np.array_equal(np.array(stored[name]), EXPECTED[name]) for name in EXPECTED)


@pytest.mark.parametrize(("dtype", "name"), [("f16", "float16"), ("f32", "float32")])
def test_other_dtypes_hold_the_same_weights(dtype: str, name: str, tmp_path: Path) -> None:
    write(tmp_path, dtype=dtype)
    config, read = loading.load(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert {raw["dtype"], raw["text_config"]["dtype"]} == {name}
    assert config == MODEL.config
    assert {value.dtype.name for value in read.values()} == {name}
    assert all(np.array_equal(read[name].astype(np.float64), EXPECTED[name]) for name in EXPECTED)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", WIDE)
def test_quantised_weights_are_mlx_s(name: str, bits: int, tmp_path: Path) -> None:
    """Experts lie apart, as mlx-community has them."""
    model = WIDE[name]
    write(tmp_path, model, bits=bits)
    prefix, stored = model.tensor_prefix, mx.load(str(tmp_path / "model.safetensors"))
    expected = weights.weights(model.id, model.config, mini=False)
    for fused in [name for name in expected if name.endswith("experts.gate_up_proj")]:
        gate, up = np.split(expected.pop(fused), 2, axis=1)
        inner = fused.replace("gate_up_proj", "switch_glu")
        expected |= {f"{inner}.gate_proj.weight": gate, f"{inner}.up_proj.weight": up}
        down = fused.replace("gate_up_proj", "down_proj")
        expected[f"{inner}.down_proj.weight"] = expected.pop(down)
    for name, value in expected.items():
        plain = mx.array(value.astype(np.float32)).astype(mx.bfloat16)
        held = name.replace("model.", prefix, 1)
        if plain.ndim == 1:
            assert mx.array_equal(stored.pop(held), plain)
            continue
        parts = mx.quantize(plain, group_size=64, bits=bits)
        module = held.removesuffix(".weight")
        for part, codes in zip(("weight", "scales", "biases"), parts, strict=True):
            assert mx.array_equal(stored.pop(f"{module}.{part}"), codes)
    assert not stored
    mlx_impl.load(tmp_path, "bfloat16")  # which takes all of them, and no others


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("at", [0, 5, 40, 150])
def test_what_was_interrupted_goes_on(at: int, shards: int, tmp_path: Path) -> None:
    count = 0

    def stop(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, shards=shards, progress=stop)
    assert not (tmp_path / "config.json").exists()
    for unfinished in tmp_path.glob("*.partial"):  # and it may have ended anywhere
        unfinished.write_bytes(unfinished.read_bytes()[:-1])
    write(tmp_path, shards=shards)
    read = loading.load(tmp_path)[1]
    assert all(np.array_equal(read[name].astype(np.float64), EXPECTED[name]) for name in EXPECTED)
    assert not list(tmp_path.glob("*.partial"))


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    write(tmp_path)
    before = (tmp_path / checkpoint.SINGLE).stat().st_mtime_ns
    write(tmp_path)
    assert (tmp_path / checkpoint.SINGLE).stat().st_mtime_ns == before


def test_another_model_s_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(ExportError, match="another configuration"):
        write(tmp_path, MODELS["31b-mini"])
    with pytest.raises(ExportError, match="another configuration"):
        write(tmp_path, bits=4)
    assert json.loads((tmp_path / "config.json").read_text()) == before
    (tmp_path / "config.json").unlink()  # as a run leaves it that was interrupted after the file
    with pytest.raises(ExportError, match=r"model\.safetensors: got other tensors"):
        write(tmp_path, WIDE["e2b"])
