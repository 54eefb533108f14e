"""The streaming pass over checkpoints: every layout in circulation, plain and quantised, whole and broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
import pytest

from gemma4_contract import FixtureError, checkpoint, tensors
from reference import inputs, loading
from reference.export.materialize import materialize
from reference.oracle import plans
from reference.oracle.arithmetic import F32, F64
from reference.oracle.decoder import Decoder
from reference.streaming import forward, matrix
from reference.streaming.arithmetic import streamed
from reference.streaming.source import from_checkpoint
from reference.streaming.stored import QuantizedMatrix
from reference.streaming.stored_taps import StoredTapRecorder
from tests.support.installed import FIXTURES
from tests.support.wide_models import WIDE

ROWS = [0, 5, 18]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a matrix takes several."""
    monkeypatch.setattr(matrix, "BLOCK_BYTES", 1 << 14)


def streamed_pass(directory: Path) -> dict[str, Any]:
    source = from_checkpoint(directory)
    ids = inputs.token_ids("streaming", 19, source.config.vocab_size)
    recorder = StoredTapRecorder(config=source.config, length=19, rows=ROWS)
    decoder = Decoder(source.config, source.weights(F64.dtype), streamed(F64))
    forward.run(decoder, ids, recorder, lambda *_: None)
    return {name: one.values for name, one in recorder.taps.items()}


def in_memory(config: Any, weights: Any) -> dict[str, Any]:
    """What a `StoredTapRecorder` keeps of the oracle's pass over arrays."""
    ids = inputs.token_ids("streaming", 19, config.vocab_size)
    recorder = StoredTapRecorder(config=config, length=19, rows=ROWS)
    taps = plans.run(Decoder(config, weights), ids, np.arange(19, dtype=np.int32)[None])
    for name, value in taps.items():
        recorder(name, value[:, ROWS] if name in ("model.norm", "logits") else value)
    return {name: one.values for name, one in recorder.taps.items()}


def assert_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert np.allclose(got[name], value, rtol=1e-12, atol=1e-12), name


@pytest.mark.parametrize("name", FIXTURES.model_ids)
def test_every_checkpoint_of_the_fixtures(name: str) -> None:
    """Both prefixes, shards, redundant keys and values, towers, experts apart."""
    directory = FIXTURES.model_dir(name)
    assert_same(streamed_pass(directory), in_memory(*loading.load(directory)))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_codes_of_every_width(bits: int, group: int, tmp_path: Path) -> None:
    plain = mx.array(np.random.default_rng(7).standard_normal((5, 256)).astype(np.float32)).astype(mx.bfloat16)
    parts = mx.quantize(plain, group_size=group, bits=bits)
    mx.save_safetensors(str(tmp_path / "q.safetensors"), dict(zip(("weight", "scales", "biases"), parts, strict=True)))
    stored = tensors.read_lazily(tmp_path / "q.safetensors")
    made = QuantizedMatrix((stored["weight"], stored["scales"], stored["biases"]), 256, F64.dtype)
    wide = (part.astype(mx.float32) for part in parts[1:])
    expected = np.array(mx.dequantize(parts[0], *wide, group_size=group, bits=bits))
    got = made.rows(slice(0, 5))
    assert np.allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert np.array_equal(made.rows(slice(3, 5)), got[3:5])
    assert np.array_equal(made[np.array([[4, 0]])], got[None, [4, 0]])
    scales, biases = (np.array(part.astype(mx.float32)).astype(np.float64) for part in parts[1:])
    codes = (got.reshape(5, -1, group) - biases[..., None]) / scales[..., None]
    assert np.abs(codes - np.round(codes)).max() < 1e-9
    assert (codes.min(), round(codes.max())) == (0, 2**bits - 1)


@pytest.mark.parametrize("name", WIDE)
def test_a_quantised_checkpoint(name: str, tmp_path: Path) -> None:
    """Against the oracle in memory, over what MLX makes of the codes."""
    materialize(WIDE[name], tmp_path, shards=2, bits=4, progress=lambda *_: None)
    held = from_checkpoint(tmp_path).weights(F64.dtype)
    stored = {
        name: tensor for file in sorted(tmp_path.glob("*.safetensors")) for name, tensor in mx.load(str(file)).items()
    }
    plain: dict[str, Any] = {}
    for part, codes in stored.items():
        if codes.dtype == mx.uint32:
            module = part.removesuffix(".weight")
            scales, biases = (stored[f"{module}.{end}"].astype(mx.float32) for end in ("scales", "biases"))
            plain[part] = np.array(mx.dequantize(codes, scales, biases, group_size=64, bits=4), np.float64)
        elif not part.endswith((".scales", ".biases")):
            plain[part] = np.array(codes.astype(mx.float32), np.float64)
    config = WIDE[name].config
    named = {part.replace("model.language_model.", "model."): value for part, value in plain.items()}
    expected = loading.checked(checkpoint.fuse_experts(named), config)
    assert held.keys() == expected.keys()
    got, memory = streamed_pass(tmp_path), in_memory(config, expected)
    assert got.keys() == memory.keys()
    for tap, value in memory.items():
        assert np.allclose(got[tap], value, rtol=1e-5, atol=1e-5), tap  # MLX's w is of float32


def broken(tmp_path: Path, change: Any, name: str = "e2b-mini") -> Path:
    """A copy of a checkpoint with its tensors changed."""
    shutil.copytree(FIXTURES.model_dir(name), tmp_path / "m")
    held = dict(tensors.read(tmp_path / "m" / "model.safetensors"))
    change(held)
    tensors.write(tmp_path / "m" / "model.safetensors", held)
    return tmp_path / "m"


NORM = "model.language_model.norm.weight"
GATE = "model.language_model.layers.0.mlp.gate_proj.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.pop(NORM), "model.norm.weight: got no such tensor"),
        (lambda held: held.update({NORM: held[NORM][:5]}), r"model.norm.weight: got shape \(5,\)"),
        (
            lambda held: held.update({GATE: held[GATE].astype(np.int32)}),
            "got dtype I32 in model.layers.0.mlp.gate_proj",
        ),
        (lambda held: held.update({GATE: np.zeros((56, 6), np.uint32)}), r"gate_proj.scales: got no such tensor"),
        (
            lambda held: held.update(
                {
                    GATE: np.zeros((56, 5), np.uint32),
                    GATE.replace("weight", "scales"): np.zeros((56, 1), ml_dtypes.bfloat16),
                    GATE.replace("weight", "biases"): np.zeros((56, 1), ml_dtypes.bfloat16),
                }
            ),
            r"gate_proj.weight: got codes, scales and biases \(56, 5\), \(56, 1\), \(56, 1\), expected width 48",
        ),
        (lambda held: held.update({"model.language_model.x.weight": held[GATE]}), "model.x.weight: got a tensor"),
    ],
)
def test_a_broken_checkpoint_is_one_line(change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(FixtureError, match=said) as told:
        from_checkpoint(broken(tmp_path, change))
    assert "\n" not in str(told.value)


def test_another_architecture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    with pytest.raises(FixtureError, match="expected the configuration of a Gemma 4 text decoder"):
        from_checkpoint(tmp_path)


def test_weights_are_rounded_once(tmp_path: Path) -> None:
    materialize(WIDE["e2b"], tmp_path, shards=1, bits=4, progress=lambda *_: None)
    wide, narrow = (from_checkpoint(tmp_path).weights(ar.dtype)["model.embed_tokens.weight"] for ar in (F64, F32))
    assert np.array_equal(narrow.rows(slice(0, 9)), wide.rows(slice(0, 9)).astype(np.float32))
