"""Quantised checkpoints: the decoder computes what their weights stand for, in every layout in circulation."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_impl import Decoder, MlxImplError, parse_config
from mlx_impl.checkpoint.load import load
from mlx_impl.checkpoint.split_experts import fused
from tests.support import gemma4_small as g
from tests.support import quantized_checkpoints as q

IDS = mx.array([[2, 17, 42, 95, 7, 33, 64, 1, 80, 5, 11, 3]])
LAYOUTS: dict[str, dict[str, Any]] = {
    "e2b of April: redundant keys, projection in bf16": {"projection": False, "redundant": True},
    "e2b of July: no such keys, projection in 4 bits": {},
    "8 bits": {"bits": 8},
    "groups of 32": {"group_size": 32},
    "one module in 8 bits": {"overrides": {"layers.1.mlp.up_proj": 8, "embed_tokens": 8}},
    "names without a prefix of its own": {"prefix": "model."},
}


def dequantized(config: dict[str, Any], meant: dict[str, mx.array]) -> Decoder:
    """The plain decoder with the weights that a quantised checkpoint stands for."""
    decoder = Decoder(parse_config(config))
    decoder.load_weights([(name, x.astype(mx.float32)) for name, x in fused(meant).items()], strict=True)
    return decoder


def close(got: mx.array, expected: mx.array) -> bool:
    scale = float(mx.abs(expected).max())
    return float(mx.abs(got - expected).max()) <= 2e-5 * scale


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_computes_what_the_weights_stand_for(layout: str, tmp_path: Path) -> None:
    meant = q.write(tmp_path, q.E2B, **LAYOUTS[layout])
    got, expected = load(tmp_path)(IDS), dequantized(q.E2B, meant)(IDS)
    assert close(got, expected)
    unrounded = dequantized(q.E2B, q.split(q.plain(q.E2B)))(IDS)
    assert not close(got, unrounded)  # or the test would see nothing


def test_a_mixture_with_an_eight_bit_router(tmp_path: Path) -> None:
    routers = {f"layers.{layer}.router.proj": 8 for layer in range(2)}
    meant = q.write(tmp_path, q.MIXTURE, overrides=routers)
    assert close(load(tmp_path)(IDS), dequantized(q.MIXTURE, meant)(IDS))


@pytest.mark.parametrize("config", [q.E2B, q.MIXTURE], ids=["e2b", "mixture"])
def test_mlx_lm_reads_the_same(config: dict[str, Any], tmp_path: Path) -> None:
    utils = pytest.importorskip("mlx_lm.utils")
    q.write(tmp_path, config, redundant=config is q.E2B)
    got = load(tmp_path)(IDS)
    whole = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(whole | {"vocab_size": config["vocab_size"]}))  # it looks there
    theirs, _ = utils.load_model(tmp_path)
    theirs.set_dtype(mx.float32)
    assert close(got, theirs(IDS))


@pytest.mark.parametrize("dtype", g.DTYPES)
def test_floats_have_the_dtype_asked_for_and_words_stay(dtype: str, tmp_path: Path) -> None:
    q.write(tmp_path, q.E2B)
    decoder = load(tmp_path, dtype)
    assert {value.dtype for value in decoder.tensors().values()} == {g.DTYPES[dtype], mx.uint32}
    assert decoder(IDS).dtype == g.DTYPES[dtype]


def test_it_takes_a_quarter_of_the_memory(tmp_path: Path) -> None:
    q.write(tmp_path / "four", q.E2B)
    held = sum(value.nbytes for value in load(tmp_path / "four", "bfloat16").tensors().values())
    whole = sum(value.nbytes for value in q.plain(q.E2B).values())
    assert held < 0.3 * whole


Spoil = dict[str, Any]
SPOILED: dict[str, tuple[Spoil, str]] = {
    "bits": ({"quantization": {"bits": 7, "group_size": 64}}, "quantization: bits: got 7; expected 2 or 3 or 4"),
    "group": ({"quantization": {"bits": 4, "group_size": 48}}, "group_size: got 48; expected 32 or 64 or 128"),
    "mode": ({"quantization": {"bits": 4, "group_size": 64, "mode": "mxfp4"}}, "mode: got 'mxfp4'; expected affine"),
    "method": ({"quantization": {"quant_method": "gptq"}}, "quantization: got 'gptq'; expected MLX's own"),
    "no object": ({"quantization": 4}, "quantization: got 4; expected MLX's own"),
    "other bits": ({"quantization": {"bits": 8, "group_size": 64}}, "expected (96, 32)"),
    "other groups": ({"quantization": {"bits": 4, "group_size": 32}}, "expected (96, 4)"),
    "none": (
        {"quantization": None, "quantization_config": None},
        "quantization: got none, although there are scales of",
    ),
    "override": (
        {"quantization": {"bits": 4, "group_size": 64, "language_model.model.norm": {"bits": 1}}},
        "quantization of model.norm: bits: got 1",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_block_that_does_not_fit_is_one_line(what: str, tmp_path: Path) -> None:
    changed, said = SPOILED[what]
    q.write(tmp_path, q.E2B)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(MlxImplError) as caught:
        load(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gate_and_up_of_two_formats_are_refused(tmp_path: Path) -> None:
    q.write(tmp_path, q.MIXTURE, overrides={"layers.0.experts.switch_glu.up_proj": 8})
    with pytest.raises(MlxImplError, match=r"gate_proj: got .*; expected one format"):
        load(tmp_path)


def test_words_in_a_float_dtype_are_refused(tmp_path: Path) -> None:
    q.write(tmp_path, q.E2B)
    path = tmp_path / "model.safetensors"
    arrays = mx.load(str(path))
    assert isinstance(arrays, dict)
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    mx.save_safetensors(str(path), arrays | {name: arrays[name].view(mx.float32)})
    with pytest.raises(MlxImplError, match=r"up_proj\.weight: got F32; expected U32"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", g.DTYPES)
@pytest.mark.parametrize("quantized", [False, True])
def test_a_mapped_table_gives_the_same_to_the_bit(dtype: str, quantized: bool, tmp_path: Path) -> None:
    if quantized:
        q.write(tmp_path, q.E2B)
    else:
        (tmp_path / "config.json").write_text(json.dumps(q.E2B))
        mx.save_safetensors(str(tmp_path / "model.safetensors"), q.plain(q.E2B))
    resident, mapped = load(tmp_path, dtype), load(tmp_path, dtype, ple="mapped")
    assert mx.array_equal(mapped(IDS), resident(IDS))
    batch = mx.array(g.ids(3, 5) % 96)
    assert mx.array_equal(mapped(batch), resident(batch))
    table = {name for name in resident.tensors() if "embed_tokens_per_layer" in name}
    assert resident.tensors().keys() - mapped.tensors().keys() == table
    assert table


def test_a_model_without_such_a_table_has_nothing_to_map(tmp_path: Path) -> None:
    q.write(tmp_path, q.MIXTURE)
    assert mx.array_equal(load(tmp_path, ple="mapped")(IDS), load(tmp_path)(IDS))
    assert np.isfinite(np.array(load(tmp_path)(IDS))).all()
