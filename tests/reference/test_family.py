"""The family table against the published files' facts, and the per-layer facts that follow from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reference.config import TextConfig
from reference.family import FAMILY, FULL, SLIDING, Member

each_member = pytest.mark.parametrize("member", FAMILY.values(), ids=FAMILY.keys())
ABSENT = object()

# Read from google/gemma-4-*-it/config.json; ABSENT is no key at all, None a key that is null.
PUBLISHED: dict[str, dict[str, Any]] = {
    "e2b": {
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "num_global_key_value_heads": None,
        "num_kv_shared_layers": 20,
        "hidden_size_per_layer_input": 256,
        "use_double_wide_mlp": True,
        "attention_k_eq_v": False,
        "sliding_window": 512,
        "max_position_embeddings": 131072,
        "expert_intermediate_size": None,
        "moe_intermediate_size": ABSENT,
        "use_bidirectional_attention": None,
        "model_type": "gemma4_text",
        "dtype": "bfloat16",
    },
    "e4b": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "num_global_key_value_heads": None,
        "num_kv_shared_layers": 18,
        "hidden_size_per_layer_input": 256,
        "use_double_wide_mlp": False,
        "attention_k_eq_v": False,
        "sliding_window": 512,
        "max_position_embeddings": 131072,
        "expert_intermediate_size": None,
        "moe_intermediate_size": ABSENT,
        "use_bidirectional_attention": None,
        "model_type": "gemma4_text",
        "dtype": "bfloat16",
    },
    "12b": {
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 1,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "use_double_wide_mlp": False,
        "attention_k_eq_v": True,
        "sliding_window": 1024,
        "max_position_embeddings": 262144,
        "expert_intermediate_size": ABSENT,
        "moe_intermediate_size": None,
        "use_bidirectional_attention": "vision",
        "model_type": "gemma4_unified_text",
        "dtype": ABSENT,
    },
    "26b-a4b": {
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "use_double_wide_mlp": False,
        "attention_k_eq_v": True,
        "sliding_window": 1024,
        "max_position_embeddings": 262144,
        "expert_intermediate_size": ABSENT,
        "moe_intermediate_size": 704,
        "use_bidirectional_attention": "vision",
        "model_type": "gemma4_text",
        "dtype": "bfloat16",
    },
    "31b": {
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "num_global_key_value_heads": 4,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "use_double_wide_mlp": False,
        "attention_k_eq_v": True,
        "sliding_window": 1024,
        "max_position_embeddings": 262144,
        "expert_intermediate_size": None,
        "moe_intermediate_size": ABSENT,
        "use_bidirectional_attention": "vision",
        "model_type": "gemma4_text",
        "dtype": "bfloat16",
    },
}
ALL_MEMBERS = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 512,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": 262144,
    "vocab_size_per_layer_input": 262144,
}
MOE = {"enable_moe_block": True, "num_experts": 128, "top_k_experts": 8}
DENSE = {"enable_moe_block": False, "num_experts": None, "top_k_experts": None}
FULL_LAYERS = {
    "e2b": range(4, 35, 5),
    "e4b": range(5, 42, 6),
    "12b": range(5, 48, 6),
    "26b-a4b": range(5, 30, 6),
    "31b": range(5, 60, 6),
}
LAYER_COUNTS = {"e2b": 35, "e4b": 42, "12b": 48, "26b-a4b": 30, "31b": 60}


@each_member
def test_table_holds_the_published_fields_and_no_others(member: Member) -> None:
    count = LAYER_COUNTS[member.id]
    expected = (
        ALL_MEMBERS | {"num_hidden_layers": count} | (MOE if member.id == "26b-a4b" else DENSE) | PUBLISHED[member.id]
    )
    kinds = ["full_attention" if layer in FULL_LAYERS[member.id] else "sliding_attention" for layer in range(count)]
    expected["layer_types"] = kinds
    assert dict(member.text_config) == {key: value for key, value in expected.items() if value is not ABSENT}


def test_unified_model_alone_lacks_some_top_level_keys() -> None:
    config = FAMILY["12b"].config(FAMILY["12b"].text_config)
    other = FAMILY["31b"].config(FAMILY["31b"].text_config)
    assert (config["model_type"], other["model_type"]) == ("gemma4_unified", "gemma4")
    assert config["architectures"] == ["Gemma4UnifiedForConditionalGeneration"]
    assert other.keys() - config.keys() == {"eoa_token_id", "vision_soft_tokens_per_image"}
    assert config["eos_token_id"] == other["eos_token_id"] == [1, 106]


# Per layer: (E, K, K = V, donor, F, window) of telling layers.
LAYERS: dict[str, dict[int, tuple[int, int, bool, int, int, int | None]]] = {
    "e2b": {
        0: (256, 1, False, 0, 6144, 512),
        4: (512, 1, False, 4, 6144, None),
        14: (512, 1, False, 14, 6144, None),
        15: (256, 1, False, 13, 12288, 512),
        33: (256, 1, False, 13, 12288, 512),
        34: (512, 1, False, 14, 12288, None),
    },
    "e4b": {
        23: (512, 2, False, 23, 10240, None),
        24: (256, 2, False, 22, 10240, 512),
        40: (256, 2, False, 22, 10240, 512),
        41: (512, 2, False, 23, 10240, None),
    },
    "12b": {46: (256, 8, False, 46, 15360, 1024), 47: (512, 1, True, 47, 15360, None)},
    "26b-a4b": {0: (256, 8, False, 0, 2112, 1024), 29: (512, 2, True, 29, 2112, None)},
    "31b": {58: (256, 16, False, 58, 21504, 1024), 59: (512, 4, True, 59, 21504, None)},
}


@each_member
def test_per_layer_facts(member: Member) -> None:
    config = TextConfig.from_dict(member.text_config)
    for layer, facts in LAYERS[member.id].items():
        assert (
            config.head_dim_of(layer),
            config.kv_heads_of(layer),
            config.k_eq_v(layer),
            config.kv_donor(layer),
            config.mlp_width_of(layer),
            config.window_of(layer),
        ) == facts, layer
    assert config.last_full_layer == config.num_hidden_layers - 1
    assert config.moe_intermediate_size == (704 if member.id == "26b-a4b" else None)
    donors = {config.kv_donor(layer) for layer in range(config.num_hidden_layers) if config.is_kv_shared(layer)}
    assert donors == {"e2b": {13, 14}, "e4b": {22, 23}}.get(member.id, set())


@each_member
def test_rope_of_each_layer_type(member: Member) -> None:
    config = TextConfig.from_dict(member.text_config)
    last, first = config.rope_of(config.num_hidden_layers - 1), config.rope_of(0)
    assert (last.rope_theta, last.rope_type, last.partial_rotary_factor) == (1e6, "proportional", 0.25)
    assert (first.rope_theta, first.rope_type, first.partial_rotary_factor) == (1e4, "default", 1.0)


@each_member
def test_whole_file_and_text_part_read_the_same(member: Member) -> None:
    whole = json.loads(json.dumps(member.config(member.text_config)))
    assert TextConfig.from_dict(whole) == TextConfig.from_dict(member.text_config)


@each_member
def test_transformers_accepts_the_configuration(member: Member) -> None:
    pytest.importorskip("transformers")
    from reference.transformers_model.build import text_config_of

    config = TextConfig.from_dict(member.text_config)
    theirs = text_config_of(member.text_config)  # raises where transformers would rewrite layer_types
    assert theirs.layer_types == list(config.layer_types)
    assert theirs.num_kv_shared_layers == config.num_kv_shared_layers
    assert theirs.rope_parameters == member.text_config["rope_parameters"]


@each_member
def test_mlx_impl_reads_the_same_facts_from_the_whole_file(member: Member, tmp_path: Path) -> None:
    pytest.importorskip("mlx.core")
    from mlx_impl import load_config

    ours = TextConfig.from_dict(member.text_config)
    (tmp_path / "config.json").write_text(json.dumps(member.config(member.text_config)))
    theirs = load_config(tmp_path)
    for layer in range(ours.num_hidden_layers):
        rope = ours.rope_of(layer)
        assert theirs.kv_donor(layer) == ours.kv_donor(layer)
        assert theirs.mlp_width(layer) == ours.mlp_width_of(layer)
        assert theirs.head_dim_of(layer) == ours.head_dim_of(layer)
        assert theirs.kv_heads_of(layer) == ours.kv_heads_of(layer)
        assert theirs.k_eq_v(layer) == ours.k_eq_v(layer)
        assert theirs.window_of(layer) == ours.window_of(layer)
        assert theirs.rope_of(layer) == (rope.rope_theta, rope.rope_type, rope.partial_rotary_factor)
    assert (theirs.moe is not None) == ours.enable_moe_block


REFUSED: dict[str, tuple[Mapping[str, Any], str]] = {
    "last layer is sliding": (
        {"layer_types": [FULL, SLIDING], "num_hidden_layers": 2, "num_kv_shared_layers": 0},
        "the last of layer_types is sliding_attention, expected full_attention",
    ),
    "type without a donor": (
        {"layer_types": [FULL, SLIDING, FULL], "num_hidden_layers": 3, "num_kv_shared_layers": 2},
        "no layer before the KV-shared range has type sliding_attention",
    ),
    "every layer shared": (
        {"layer_types": [SLIDING, FULL], "num_hidden_layers": 2, "num_kv_shared_layers": 2},
        "no layer before the KV-shared range has type full_attention, sliding_attention",
    ),
    "layers miscounted": ({"num_hidden_layers": 34}, "layer_types has 35 entries for 34 layers"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_impossible_configurations_are_refused(change: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        TextConfig.from_dict({**FAMILY["e2b"].text_config, **change})
    assert str(caught.value) == message


def test_both_spellings_of_the_expert_width_are_read() -> None:
    raw = dict(FAMILY["26b-a4b"].text_config)
    renamed = {key: value for key, value in raw.items() if key != "moe_intermediate_size"}
    renamed["expert_intermediate_size"] = 704
    beside_null = {**renamed, "moe_intermediate_size": None}
    for spelling in (raw, renamed, beside_null):
        assert TextConfig.from_dict(spelling).moe_intermediate_size == 704


def test_donor_is_the_last_own_layer_of_the_type_not_the_nearest() -> None:
    kinds = [FULL, SLIDING, SLIDING, FULL, FULL, SLIDING, FULL, SLIDING, FULL]
    config = TextConfig.from_dict(
        {**FAMILY["e4b"].text_config, "layer_types": kinds, "num_hidden_layers": 9, "num_kv_shared_layers": 4}
    )
    assert [config.kv_donor(layer) for layer in range(9)] == [0, 1, 2, 3, 4, 2, 4, 2, 4]
