"""The reader of ordinary checkpoints: files, names, experts, configuration, and what it refuses in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma4_contract import FixtureError, checkpoint, tensors
from reference import loading
from reference.config import Rope, TextConfig
from reference.export.checkpoint import model_weights
from reference.family import FAMILY, FULL, SLIDING
from reference.models import MODELS

NAMES: dict[str, str | None] = {
    "model.layers.0.layer_scalar": "model.layers.0.layer_scalar",
    "model.language_model.layers.0.layer_scalar": "model.layers.0.layer_scalar",
    "language_model.model.norm.weight": "model.norm.weight",
    "language_model.model.layers.0.router.scale": "model.layers.0.router.scale",
    "layers.0.layer_scalar": "layers.0.layer_scalar",
    "model.model.norm.weight": "model.model.norm.weight",
    "lm_head.weight": None,
    "model.lm_head.weight": None,
    "language_model.lm_head.weight": None,
    "model.vision_tower.encoder.layers.0.self_attn.k_proj.weight": None,
    "vision_tower.x": None,
    "audio_tower.x": None,
    "model.embed_vision.embedding_projection.weight": None,
    "model.embed_audio.embedding_projection.weight": None,
    "vision_embedder.x": None,
    "model.rotary_emb.inv_freq": None,
    "model.language_model.rotary_emb.full_attention_inv_freq": None,
    "model.layers.0.self_attn.rotary_emb.inv_freq": None,
}


def test_names_of_every_layout() -> None:
    assert {name: checkpoint.text_name(name) for name in NAMES} == NAMES


# --- files


def test_the_single_file_is_read_even_beside_an_index(tmp_path: Path) -> None:
    assert checkpoint.files(tmp_path) == [tmp_path / "model.safetensors"]  # to be missed by its name
    index = {"weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors", "c": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    shards = [tmp_path / "model-1.safetensors", tmp_path / "model-2.safetensors"]
    assert checkpoint.files(tmp_path) == shards
    assert list(checkpoint.parts(tmp_path)) == [
        tmp_path / "config.json",
        tmp_path / "model.safetensors.index.json",
        *shards,
    ]
    tensors.write(tmp_path / "model.safetensors", {})
    assert checkpoint.files(tmp_path) == [tmp_path / "model.safetensors"]
    assert list(checkpoint.parts(tmp_path)) == [tmp_path / "config.json", tmp_path / "model.safetensors"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}'])
def test_a_broken_index_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(FixtureError, match=r"index\.json: got .*, expected .*; download it again"):
        checkpoint.files(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_broken_config_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(FixtureError, match=r"config\.json: got "):
        checkpoint.read_config(tmp_path)


def test_two_tensors_for_one_are_refused(tmp_path: Path) -> None:
    x = np.ones(2, np.float32)
    tensors.write(tmp_path / "model.safetensors", {"model.norm.weight": x, "language_model.model.norm.weight": x})
    with pytest.raises(FixtureError, match=r"got a second tensor for model\.norm\.weight, expected one; remove "):
        checkpoint.text_weights(tmp_path)


# --- experts


def test_split_experts_are_fused_gate_first() -> None:
    gate, up, down = (np.full(shape, i) for i, shape in enumerate([(2, 3, 4), (2, 3, 4), (2, 4, 3)]))
    split = {
        f"model.layers.7.experts.switch_glu.{part}_proj.weight": value
        for part, value in (("up", up), ("down", down), ("gate", gate))
    }
    fused = checkpoint.fuse_experts(split | {"model.norm.weight": gate})
    assert fused.keys() == {
        "model.norm.weight",
        "model.layers.7.experts.gate_up_proj",
        "model.layers.7.experts.down_proj",
    }
    assert fused["model.layers.7.experts.gate_up_proj"][1, :, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert fused["model.layers.7.experts.down_proj"] is down
    for name in split:
        with pytest.raises(ValueError, match=rf"^{name}: got no such tensor, expected gate, up and down"):
            checkpoint.fuse_experts({other: value for other, value in split.items() if other != name})


# --- the weights against the configuration

GQA = MODELS["trap-gqa"]  # layers 2 and 3 are KV-shared
KEY = "model.layers.3.self_attn.k_proj.weight"


def whole() -> dict[str, Any]:
    return dict(model_weights(GQA))


def test_whole_weights_pass_as_they_are() -> None:
    weights = whole()
    assert loading.checked(weights, GQA.config) is weights


def test_redundant_keys_and_values_may_stay() -> None:
    redundant = {
        f"model.layers.{layer}.self_attn.{part}.weight": np.zeros(shape)
        for layer, width in ((2, 8), (3, 16))
        for part, shape in (("k_proj", (2 * width, 40)), ("v_proj", (2 * width, 40)), ("k_norm", (width,)))
    }
    weights = whole() | redundant
    assert loading.checked(weights, GQA.config).keys() == weights.keys()


def test_what_does_not_fit_is_named() -> None:
    norm, surplus = "model.layers.1.input_layernorm.weight", "model.layers.3.self_attn.k_bias"
    faults: dict[str, tuple[dict[str, Any], str]] = {
        "missing": ({name: x for name, x in whole().items() if name != norm}, f"{norm}: got no such tensor"),
        "unexpected": (whole() | {surplus: np.ones(2)}, f"{surplus}: got a tensor, expected none"),
        "misshapen": (whole() | {norm: np.ones(41)}, f"{norm}: got shape \\(41,\\), expected \\(40,\\)"),
        "redundant": (whole() | {KEY: np.ones((8, 40))}, f"{KEY}: got shape \\(8, 40\\), expected \\(32, 40\\)"),
        "no layer": (whole() | {KEY.replace("3", "4"): np.ones(2)}, "model.layers.4.*: got a tensor"),
    }
    for weights, message in faults.values():
        with pytest.raises(ValueError, match=f"^{message}"):
            loading.checked(weights, GQA.config)


# --- config.json


def published(member: str, **changes: Any) -> dict[str, Any]:
    """A published text configuration; keys whose change is ... are left out."""
    text = {**FAMILY[member].text_config, **changes}
    return {key: value for key, value in text.items() if value is not ...}


def test_absent_rope_parameters_are_the_family_s() -> None:
    for absent in (..., None):
        rope = TextConfig.from_dict(published("31b", rope_parameters=absent)).rope_parameters
        assert rope == {
            FULL: Rope(rope_theta=1e6, rope_type="proportional", partial_rotary_factor=0.25),
            SLIDING: Rope(rope_theta=1e4, rope_type="default", partial_rotary_factor=1.0),
        }


def test_absent_switches_are_off() -> None:
    names = ("enable_moe_block", "use_double_wide_mlp", "num_kv_shared_layers", "final_logit_softcapping")
    config = TextConfig.from_dict(published("e2b", **dict.fromkeys(names, ...)))
    assert [getattr(config, name) for name in names] == [False, False, 0, None]


def test_the_sizes_of_experts_make_no_mixture() -> None:
    sizes = {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 16}
    assert not TextConfig.from_dict(published("12b", **sizes)).enable_moe_block


@pytest.mark.parametrize("absent", ["num_experts", "top_k_experts", "moe_intermediate_size"])
def test_a_mixture_without_a_size_is_refused(absent: str) -> None:
    with pytest.raises(ValueError, match=f"^{absent}: got None, expected a number beside enable_moe_block"):
        TextConfig.from_dict(published("26b-a4b", **{absent: ...}))


def per_layer(member: str, table: dict[str, Any]) -> TextConfig:
    return TextConfig.from_dict(
        published(member, per_layer_config=table, global_head_dim=..., num_global_key_value_heads=...)
    )


def test_per_layer_config_is_another_spelling() -> None:
    full = [f"{layer:02}" for layer in range(5, 48, 6)]
    keqv = per_layer("12b", {layer: {"head_dim": 512, "num_key_value_heads": 1} for layer in full})
    assert keqv == TextConfig.from_dict(published("12b"))
    dense = per_layer("e2b", {str(layer): {"head_dim": 512} for layer in range(4, 35, 5)})
    assert dense == TextConfig.from_dict(published("e2b"))


@pytest.mark.parametrize(
    "table",
    [
        {"05": {"head_dim": 512}},  # the other full layers have another shape
        {f"{layer:02}": {"head_dim": 512} for layer in (0, *range(5, 48, 6))},  # layer 0 is sliding
    ],
)
def test_a_per_layer_config_of_no_member_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^per_layer_config: got .*, expected one shape for all full layers"):
        per_layer("12b", table)
