"""Loading: every layout in circulation gives the same model; everything else is refused in one line."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_impl import Decoder, MlxImplError, load_config, parse_config
from mlx_impl.checkpoint.load import load
from tests.support import gemma4_small as g

IDS = mx.array(g.ids(1, 12))
EXTRA: dict[str, tuple[int, ...]] = {
    "model.vision_tower.encoder.layers.0.self_attn.k_proj.weight": (2, 2),
    "vision_tower.encoder.layers.7.self_attn.k_norm.weight": (2,),
    "model.audio_tower.output.weight": (2,),
    "model.embed_vision.embedding_projection.weight": (2, 2),
    "embed_audio.embedding_projection.weight": (2, 2),
    "multi_modal_projector.weight": (2,),
    "model.vision_embedder.patch_dense.weight": (2, 2),
    "model.rotary_emb.inv_freq": (4,),
    "model.language_model.rotary_emb.full_attention_inv_freq": (4,),
    "model.layers.0.self_attn.rotary_emb.inv_freq": (4,),
    "lm_head.weight": (64, 24),
}
REDUNDANT: dict[str, tuple[int, ...]] = {
    f"model.layers.{i}.self_attn.{part}.weight": (3,) for i in (5, 6, 7) for part in ("k_proj", "v_proj", "k_norm")
}


def tensors(kind: str, dtype: mx.Dtype = mx.bfloat16) -> dict[str, mx.array]:
    """The weights of a small model as a checkpoint stores them."""
    named = g.weights(Decoder(parse_config(g.SMALL[kind])))
    return {name: mx.array(value).astype(dtype) for name, value in named.items()}


def write(path: Path, arrays: dict[str, mx.array], config: object, shards: int = 1) -> Path:
    """A checkpoint's directory."""
    (path / "config.json").write_text(json.dumps(config))
    if shards == 1:
        mx.save_safetensors(str(path / "model.safetensors"), arrays)
        return path
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: value for i, (name, value) in enumerate(arrays.items()) if i % shards == shard}
        mx.save_safetensors(str(path / file), part)
        weight_map |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, mx.array]:
    return {name: mx.full(shape, 7.0, dtype=mx.bfloat16) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", g.SMALL)
def test_bf16_widens_exactly(kind: str, tmp_path: Path) -> None:
    write(tmp_path, tensors(kind), g.SMALL[kind])
    decoder = load(tmp_path)
    want = g.weights(decoder)
    for name, value in decoder.tensors().items():
        assert value.dtype == mx.float32
        assert np.array_equal(np.array(value), want[name]), name
    assert load_config(tmp_path) == decoder.config
    assert mx.array_equal(decoder(IDS), g.small(kind)(IDS))


@pytest.mark.parametrize("stored", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("dtype", g.DTYPES)
def test_every_parameter_has_the_dtype_asked_for(dtype: str, stored: mx.Dtype, tmp_path: Path) -> None:
    decoder = load(write(tmp_path, tensors("e2b", stored), g.SMALL["e2b"]), dtype)
    assert {value.dtype for value in decoder.tensors().values()} == {g.DTYPES[dtype]}
    assert decoder(IDS).dtype == g.DTYPES[dtype]


@pytest.mark.parametrize("prefix", ["model.", "model.language_model.", "language_model.model."])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("redundant", [False, True])
def test_every_layout_loads_the_same(prefix: str, shards: int, redundant: bool, tmp_path: Path) -> None:
    arrays = tensors("e2b") | (filled(REDUNDANT) if redundant else {})
    arrays = {prefix + name.removeprefix("model."): value for name, value in arrays.items()} | filled(EXTRA)
    decoder = load(write(tmp_path, arrays, g.SMALL["e2b"], shards))
    assert mx.array_equal(decoder(IDS), g.small("e2b")(IDS))


def split_mixture(dtype: mx.Dtype = mx.bfloat16) -> dict[str, mx.array]:
    """The mixture as mlx-community stores it: gate, up and down of the experts apart."""
    arrays: dict[str, mx.array] = {}
    for name, value in tensors("26b-a4b", dtype).items():
        layer, _, part = name.partition(".experts.")
        if part == "gate_up_proj":
            arrays[f"{layer}.experts.switch_glu.gate_proj.weight"] = mx.contiguous(value[:, :10])
            arrays[f"{layer}.experts.switch_glu.up_proj.weight"] = mx.contiguous(value[:, 10:])
        else:
            arrays[f"{layer}.experts.switch_glu.down_proj.weight" if part == "down_proj" else name] = value
    return {name.replace("model.", "language_model.model.", 1): value for name, value in arrays.items()}


@pytest.mark.parametrize("dtype", g.DTYPES)
@pytest.mark.parametrize("shards", [1, 3])
def test_split_experts_load_the_same(shards: int, dtype: str, tmp_path: Path) -> None:
    decoder = load(write(tmp_path, split_mixture(), g.SMALL["26b-a4b"], shards), dtype)
    want = g.small("26b-a4b", dtype).tensors()
    assert decoder.tensors().keys() == want.keys()
    for name, value in decoder.tensors().items():
        assert value.dtype == g.DTYPES[dtype]
        assert mx.array_equal(value, want[name]), name


EXPERTS = "language_model.model.layers.2.experts."
SPOILED_EXPERTS: dict[str, tuple[Callable[[dict[str, mx.array]], object], tuple[str, ...]]] = {
    "no gate": (
        lambda a: a.pop(f"{EXPERTS}switch_glu.gate_proj.weight"),
        ("gate_proj", "no such tensor", "(7, 10, 24)"),
    ),
    "no up": (lambda a: a.pop(f"{EXPERTS}switch_glu.up_proj.weight"), ("up_proj", "no such tensor", "(7, 10, 24)")),
    "no down": (lambda a: a.pop(f"{EXPERTS}switch_glu.down_proj.weight"), ("down_proj", "no such tensor")),
    "transposed": (
        lambda a: a.update({f"{EXPERTS}switch_glu.up_proj.weight": mx.zeros((7, 24, 10))}),
        ("up_proj", "(7, 24, 10)", "expected (7, 10, 24)"),
    ),
    "fused beside split": (
        lambda a: a.update({f"{EXPERTS}gate_up_proj": mx.zeros((7, 20, 24))}),
        ("experts.gate_up_proj", "no tensor of this name"),
    ),
    "quantised": (
        lambda a: a.update({f"{EXPERTS}switch_glu.up_proj.scales": mx.zeros((1,))}),
        ("quantization: got none, although there are scales of", "up_proj"),
    ),
}


@pytest.mark.parametrize("what", SPOILED_EXPERTS)
def test_split_experts_that_do_not_fit_are_refused(what: str, tmp_path: Path) -> None:
    spoil, parts = SPOILED_EXPERTS[what]
    arrays = split_mixture()
    spoil(arrays)
    refused(write(tmp_path, arrays, g.SMALL["26b-a4b"]), *parts)


def test_split_experts_of_a_dense_model_are_refused(tmp_path: Path) -> None:
    extra = {"model.layers.0.experts.switch_glu.up_proj.weight": mx.zeros((7, 10, 24))}
    refused(write(tmp_path, tensors("31b") | extra, g.SMALL["31b"]), "switch_glu.up_proj", "no tensor of this name")


def test_names_are_those_of_transformers() -> None:
    names = set(tensors("e2b"))
    assert {
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.layer_scalar",
    } <= names
    assert {"model.layers.7.per_layer_input_gate.weight", "model.per_layer_projection_norm.weight"} <= names
    assert not any("rope" in name or "freq" in name for name in names)
    mixture = set(tensors("26b-a4b"))
    assert {"model.layers.0.experts.gate_up_proj", "model.layers.0.router.per_expert_scale"} <= mixture
    assert "model.layers.1.self_attn.v_proj.weight" not in mixture  # K = V on full layers
    assert "model.layers.0.self_attn.v_proj.weight" in mixture


NAME = "model.layers.1.mlp.up_proj.weight"


def refused(path: Path, *parts: str) -> None:
    """Loading `path` ends in one line that holds all `parts`."""
    with pytest.raises(MlxImplError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message


Spoil = Callable[[dict[str, mx.array]], object]
SPOILED: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "missing": (lambda a: a.pop(NAME), (NAME, "no such tensor", "(20, 24)")),
    "missing scalar": (lambda a: a.pop("model.layers.3.layer_scalar"), ("model.layers.3.layer_scalar",)),
    "shape": (lambda a: a.update({NAME: mx.zeros((24, 20))}), (NAME, "(24, 20)", "expected (20, 24)")),
    "dtype": (lambda a: a.update({NAME: mx.zeros((20, 24), dtype=mx.int8)}), (NAME, "I8")),
    "unknown": (lambda a: a.update({"model.layers.0.mlp.up_prj.weight": mx.zeros((1,))}), ("up_prj", "did you mean")),
    "no prefix": (lambda a: a.update({"layers.0.mlp.up_proj.weight": mx.zeros((1,))}), ("layers.0.mlp.up_proj",)),
    "own-KV layer too many": (
        lambda a: a.update({"model.layers.8.self_attn.k_proj.weight": mx.zeros((1,))}),
        ("model.layers.8.self_attn.k_proj.weight", "no tensor of this name"),
    ),
    "quantised": (
        lambda a: a.update({"model.layers.1.mlp.up_proj.scales": mx.zeros((1,))}),
        ("quantization: got none, although there are scales of model.layers.1.mlp.up_proj",),
    ),
    "twice": (lambda a: a.update({NAME.replace("model.", "language_model.model."): a[NAME]}), ("got both", NAME)),
    "a prefix twice": (lambda a: a.update({"model." + NAME: a.pop(NAME)}), ("model.model.layers.1",)),
}


@pytest.mark.parametrize("what", SPOILED)
def test_tensors_that_do_not_fit_are_refused(what: str, tmp_path: Path) -> None:
    spoil, parts = SPOILED[what]
    arrays = tensors("e2b")
    spoil(arrays)
    refused(write(tmp_path, arrays, g.SMALL["e2b"]), *parts)


@pytest.mark.parametrize("keep", [0, 5, 8, 400, -1])
def test_a_truncated_file_is_refused(keep: int, tmp_path: Path) -> None:
    write(tmp_path, tensors("e2b"), g.SMALL["e2b"])
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(tmp_path, "model.safetensors", "download it again")


HEADERS: dict[str, bytes] = {
    "no json": b"{]",
    "a list": b"[1]",
    "a number for a tensor": b'{"a": 1}',
    "no shape": b'{"a": {"dtype": "F32", "data_offsets": [0, 0]}}',
    "no utf-8": b"\xff\xfe\xff",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_broken_header_is_refused(what: str, tmp_path: Path) -> None:
    write(tmp_path, tensors("e2b"), g.SMALL["e2b"])
    header = HEADERS[what]
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(tmp_path, "model.safetensors", "broken header")


def test_a_header_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, tensors("e2b"), g.SMALL["e2b"])
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header[NAME]["data_offsets"][1] -= 2
    body = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(body)) + body + data[8 + length :])
    refused(tmp_path, "model.safetensors")


@pytest.mark.parametrize(
    ("content", "part"),
    [("{", "no JSON"), ("", "no JSON"), ("[]", "JSON object"), ('{"model_type": "llama"}', "model_type: got 'llama'")],
)
def test_a_broken_config_is_refused(content: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    refused(tmp_path, "config.json", part)
    with pytest.raises(MlxImplError, match=r"config\.json"):
        load_config(tmp_path)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "config.json", "no such file")
    (tmp_path / "config.json").write_text(json.dumps(g.SMALL["e2b"]))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    refused(tmp_path, "pytorch_model.bin", "only safetensors")
    refused(tmp_path / "nowhere", "no such file")


INDEXES: dict[str, tuple[object, str]] = {
    "no map": ({}, "no weight_map"),
    "an empty map": ({"weight_map": {}}, "no weight_map"),
    "a list": ([1], "no weight_map"),
    "a missing shard": ({"weight_map": {"a": "gone.safetensors"}}, "gone.safetensors: got no such file"),
    "a path": ({"weight_map": {"a": "../model.safetensors"}}, "plain file name"),
    "a number": ({"weight_map": {"a": 3}}, "plain file name"),
    "a tensor that is elsewhere": ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "no tensor a"),
}


@pytest.mark.parametrize("what", INDEXES)
def test_a_broken_index_is_refused(what: str, tmp_path: Path) -> None:
    content, part = INDEXES[what]
    write(tmp_path, tensors("e2b"), g.SMALL["e2b"], shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    refused(tmp_path, part)


def test_unknown_dtypes_and_places_are_refused(tmp_path: Path) -> None:
    write(tmp_path, tensors("e2b"), g.SMALL["e2b"])
    with pytest.raises(MlxImplError, match="dtype: got 'float8'"):
        load(tmp_path, "float8")
    with pytest.raises(MlxImplError, match="ple: got 'disk'; expected resident or mapped"):
        load(tmp_path, ple="disk")  # type: ignore[arg-type]
    with pytest.raises(MlxImplError, match="layers: got 'disk'; expected resident or streamed"):
        load(tmp_path, layers="disk")  # type: ignore[arg-type]
