"""The configuration: published files parse, layouts agree, everything else is refused by name."""

import copy
import dataclasses
import json
import random
from typing import Any

import pytest

from mlx_impl import MlxImplError, parse_config
from mlx_impl.model.config import Moe
from tests.support import gemma4_small as g
from tests.support.gemma4_small import FAMILY, F, S


def nested(text: dict[str, Any], **top: Any) -> dict[str, Any]:
    """A multimodal config.json around a text config, with the top-level keys of the published files."""
    kind = text["model_type"].removesuffix("_text")
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "audio_config": None,
        "audio_token_id": 258881,
        "eoa_token_index": 258883,
        "eos_token_id": [1, 106],
        "initializer_range": 0.02,
        "model_type": kind,
        "text_config": text,
        "tie_word_embeddings": True,
        "transformers_version": "5.5.0.dev0",
        "vision_config": {"hidden_size": 768, "anything": "goes"},
        "vision_soft_tokens_per_image": 280,
        **top,
    }


@pytest.mark.parametrize("name", FAMILY)
def test_flat_and_nested_read_the_same(name: str) -> None:
    flat = parse_config(FAMILY[name])
    assert flat == parse_config(nested(FAMILY[name]))
    assert flat == parse_config(json.loads(json.dumps(FAMILY[name])))
    assert flat.num_hidden_layers == len(flat.layer_types)


# (layer, E, K, K = V, shared, donor, F, window) of the first sliding and full layers, of shared ones and the last.
FACTS = {
    "e2b": [
        (0, 256, 1, False, False, 0, 6144, 512),
        (4, 512, 1, False, False, 4, 6144, None),
        (33, 256, 1, False, True, 13, 12288, 512),
        (34, 512, 1, False, True, 14, 12288, None),
    ],
    "e4b": [
        (0, 256, 2, False, False, 0, 10240, 512),
        (5, 512, 2, False, False, 5, 10240, None),
        (40, 256, 2, False, True, 22, 10240, 512),
        (41, 512, 2, False, True, 23, 10240, None),
    ],
    "12b": [(0, 256, 8, False, False, 0, 15360, 1024), (47, 512, 1, True, False, 47, 15360, None)],
    "26b-a4b": [(0, 256, 8, False, False, 0, 2112, 1024), (29, 512, 2, True, False, 29, 2112, None)],
    "31b": [(0, 256, 16, False, False, 0, 21504, 1024), (59, 512, 4, True, False, 59, 21504, None)],
}


@pytest.mark.parametrize("name", FAMILY)
def test_per_layer_facts(name: str) -> None:
    config = parse_config(FAMILY[name])
    for layer, head_dim, kv_heads, k_eq_v, shared, donor, width, window in FACTS[name]:
        assert config.head_dim_of(layer) == head_dim
        assert config.kv_heads_of(layer) == kv_heads
        assert config.k_eq_v(layer) is k_eq_v
        assert config.is_kv_shared(layer) is shared
        assert config.kv_donor(layer) == config.kv_donors()[layer] == donor
        assert config.mlp_width(layer) == width
        assert config.window_of(layer) == window
        sliding = (1e4, "default", 1.0)
        assert config.rope_of(layer) == (sliding if window else (1e6, "proportional", 0.25))


def test_donors_of_e2b_and_of_a_model_that_shares_nothing() -> None:
    assert parse_config(FAMILY["e2b"]).kv_donors() == (*range(15), *([13] * 4 + [14]) * 4)
    assert parse_config(FAMILY["12b"]).kv_donors() == tuple(range(48))


def test_only_an_enabled_block_makes_a_mixture() -> None:
    assert parse_config(FAMILY["26b-a4b"]).moe == Moe(num_experts=128, top_k=8, intermediate_size=704)
    assert parse_config(FAMILY["e2b"]).moe is None
    assert parse_config(FAMILY["26b-a4b"] | {"enable_moe_block": False}).moe is None


def test_expert_width_under_either_name() -> None:
    old = g.without(FAMILY["26b-a4b"], "moe_intermediate_size") | {"expert_intermediate_size": 704}
    assert parse_config(old) == parse_config(FAMILY["26b-a4b"])


def test_missing_rope_parameters_are_the_published_ones() -> None:
    assert parse_config(g.without(FAMILY["e2b"], "rope_parameters")) == parse_config(FAMILY["e2b"])
    assert parse_config(FAMILY["e2b"] | {"rope_parameters": None}) == parse_config(FAMILY["e2b"])


def test_softcap_may_be_null() -> None:
    assert parse_config(FAMILY["e2b"] | {"final_logit_softcapping": None}).final_logit_softcapping is None


@pytest.mark.parametrize("name", FAMILY)
def test_per_layer_config_of_newer_transformers_reads_the_same(name: str) -> None:
    text = FAMILY[name]
    own = {"head_dim": 512}
    if text["num_global_key_value_heads"] is not None:
        own["num_key_value_heads"] = text["num_global_key_value_heads"]
    new = g.without(text, "global_head_dim", "num_global_key_value_heads")
    new["per_layer_config"] = {str(i): own for i, kind in enumerate(text["layer_types"]) if kind == F}
    assert parse_config(new) == parse_config(text)


def test_what_transformers_saves_reads_the_same() -> None:
    theirs = pytest.importorskip("transformers.models.gemma4")
    saved = json.loads(theirs.Gemma4TextConfig(**copy.deepcopy(FAMILY["31b"])).to_json_string(use_diff=False))
    assert "per_layer_config" in saved
    assert parse_config(saved) == parse_config(FAMILY["31b"])


E2B, MOE, DENSE = FAMILY["e2b"], FAMILY["26b-a4b"], FAMILY["31b"]
PER_LAYER = g.without(DENSE, "global_head_dim", "num_global_key_value_heads")
FULL_ROPE, SLIDING_ROPE = g.ROPE[F], g.ROPE[S]
REFUSED: dict[str, tuple[Any, str]] = {
    "not an object": ([1], "JSON object"),
    "no model_type": (g.without(E2B, "model_type"), "model_type: got no such key"),
    "model_type of another family": (E2B | {"model_type": "gemma3_text"}, "model_type: got 'gemma3_text'"),
    "unknown text key": (E2B | {"sliding_windw": 4}, "'sliding_windw'; expected a known key; did you mean 'sliding_w"),
    "unknown key with nothing near": (E2B | {"zzz": 4}, "unknown key 'zzz'"),
    "unknown top key": (nested(E2B, final_logit_softcapping=30.0), "unknown key 'final_logit_softcapping'"),
    "no text_config": (g.without(nested(E2B), "text_config"), "text_config: got None"),
    "text_config of another kind": (nested(E2B, model_type="gemma4_unified"), "text_config.model_type"),
    "untied": (E2B | {"tie_word_embeddings": False}, "tie_word_embeddings: got False"),
    "untied at the top": (nested(E2B, tie_word_embeddings=False), "tie_word_embeddings: got False"),
    "attention bias": (E2B | {"attention_bias": True}, "attention_bias: got True"),
    "flag spelled 0": (E2B | {"attention_bias": 0}, "attention_bias: got 0"),
    "another activation": (E2B | {"hidden_activation": "silu"}, "hidden_activation: got 'silu'"),
    "bidirectional": (E2B | {"use_bidirectional_attention": "all"}, "use_bidirectional_attention: got 'all'"),
    "no layer_types": (g.without(E2B, "layer_types"), "layer_types: got no such key"),
    "null layer_types": (E2B | {"layer_types": None}, "layer_types: got None"),
    "numbers in layer_types": (E2B | {"layer_types": [1] * 35}, "layer_types: got 1"),
    "too few layer_types": (E2B | {"layer_types": [F]}, "layer_types: got 1 entries; expected num_hidden_layers = 35"),
    "unknown layer type": (E2B | {"layer_types": ["chunked"] + [F] * 34}, "layer_types[0]: got 'chunked'"),
    "last layer slides": (E2B | {"layer_types": [F] * 34 + [S]}, "layer_types[-1]: got 'sliding_attention'"),
    "shared layer without donor": (E2B | {"layer_types": [F] * 20 + [S] + [F] * 14}, "layer_types[20]"),
    "all layers shared": (E2B | {"num_kv_shared_layers": 35}, "num_kv_shared_layers: got 35"),
    "negative sharing": (E2B | {"num_kv_shared_layers": -1}, "num_kv_shared_layers: got -1"),
    "heads do not divide": (E2B | {"num_key_value_heads": 3}, "num_key_value_heads: got 3"),
    "global heads do not divide": (DENSE | {"num_global_key_value_heads": 5}, "num_global_key_value_heads: got 5"),
    "odd head dim": (E2B | {"head_dim": 255}, "head_dim: got 255"),
    "odd global head dim": (E2B | {"global_head_dim": 511}, "global_head_dim: got 511"),
    "zero size": (E2B | {"hidden_size": 0}, "hidden_size: got 0"),
    "float size": (E2B | {"hidden_size": 1536.0}, "hidden_size: got 1536.0"),
    "bool size": (E2B | {"num_hidden_layers": True}, "num_hidden_layers: got True"),
    "size beyond 32 bits": (E2B | {"hidden_size": 10**30}, "hidden_size: got 1000"),
    "axis beyond 32 bits": (E2B | {"intermediate_size": 2**31 - 1}, "2 * intermediate_size: got 4294967294"),
    "string size": (E2B | {"sliding_window": "512\n"}, "sliding_window: got '512\\n'"),
    "eps of zero": (E2B | {"rms_norm_eps": 0.0}, "rms_norm_eps: got 0.0"),
    "eps NaN": (E2B | {"rms_norm_eps": float("nan")}, "rms_norm_eps: got nan"),
    "softcap infinite": (E2B | {"final_logit_softcapping": float("inf")}, "final_logit_softcapping: got inf"),
    "softcap huge": (E2B | {"final_logit_softcapping": 10**400}, "final_logit_softcapping: got 1000"),
    "softcap absent": (g.without(E2B, "final_logit_softcapping"), "final_logit_softcapping: got no such key"),
    "flag as text": (E2B | {"use_double_wide_mlp": "true"}, "use_double_wide_mlp: got 'true'"),
    "PLE without a table": (E2B | {"vocab_size_per_layer_input": 0}, "vocab_size_per_layer_input: got 0"),
    "unknown rope type": (E2B | {"rope_parameters": g.ROPE | {F: FULL_ROPE | {"rope_type": "yarn"}}}, "rope_type"),
    "unknown rope key": (E2B | {"rope_parameters": g.ROPE | {F: FULL_ROPE | {"factor": 8.0}}}, "'factor'"),
    "unknown rope entry": (E2B | {"rope_parameters": g.ROPE | {"chunked": {}}}, "'chunked'"),
    "rope without sliding": (E2B | {"rope_parameters": {F: FULL_ROPE}}, "sliding_attention: got None"),
    "rope without theta": (E2B | {"rope_parameters": g.ROPE | {S: {"rope_type": "default"}}}, "rope_theta"),
    "proportional without factor": (
        E2B | {"rope_parameters": g.ROPE | {F: g.without(FULL_ROPE, "partial_rotary_factor")}},
        "partial_rotary_factor: got no such key",
    ),
    "factor above one": (
        E2B | {"rope_parameters": g.ROPE | {F: FULL_ROPE | {"partial_rotary_factor": 1.5}}},
        "partial_rotary_factor: got 1.5",
    ),
    "default with a factor": (
        E2B | {"rope_parameters": g.ROPE | {S: SLIDING_ROPE | {"partial_rotary_factor": 0.5}}},
        "partial_rotary_factor: got 0.5",
    ),
    "experts without a number": (MOE | {"num_experts": None}, "num_experts: got null"),
    "experts without a choice": (MOE | {"top_k_experts": None}, "top_k_experts: got null"),
    "experts without a width": (g.without(MOE, "moe_intermediate_size"), "moe_intermediate_size: got null"),
    "more chosen than there are": (MOE | {"top_k_experts": 129}, "top_k_experts: got 129"),
    "two expert widths": (MOE | {"expert_intermediate_size": 705}, "got 704 and 705"),
    "per-layer and global": (DENSE | {"per_layer_config": {"5": {"head_dim": 512}}}, "global_head_dim"),
    "per-layer on a sliding layer": (PER_LAYER | {"per_layer_config": {"0": {"head_dim": 512}}}, "layer '0'"),
    "per-layer twice": (PER_LAYER | {"per_layer_config": {"5": {}, "05": {}}}, "layer '5'"),
    "per-layer of no layer": (PER_LAYER | {"per_layer_config": {"five": {}}}, "layer 'five'"),
    "per-layer for some": (PER_LAYER | {"per_layer_config": {"5": {"head_dim": 512}}}, "expected one shape"),
    "per-layer of something else": (PER_LAYER | {"per_layer_config": {"5": {"sliding_window": 4}}}, "sliding_window"),
    "per-layer heads without K = V": (
        PER_LAYER
        | {"attention_k_eq_v": False}
        | {"per_layer_config": {str(i): {"num_key_value_heads": 4} for i in range(5, 60, 6)}},
        "4 KV heads",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_one_line(what: str) -> None:
    d, message = REFUSED[what]
    with pytest.raises(MlxImplError) as caught:
        parse_config(d)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_damage_ends_in_one_line_or_in_a_valid_config() -> None:
    rng = random.Random("damage")
    values = [None, True, False, 0, -1, 2, 7, 2**31, 1e308, float("nan"), "", "x\n", [], {}, [1], {"a": 1}, [F], F]
    read, messages = 0, []
    for _ in range(1500):
        d = copy.deepcopy(g.SMALL[rng.choice(list(g.SMALL))])
        target = rng.choice([d, d, d, d["rope_parameters"], d["rope_parameters"][F]])
        target[rng.choice(list(target))] = rng.choice(values)
        try:
            parse_config(d)
            read += 1
        except MlxImplError as error:
            messages.append(str(error))
    assert read > 100
    assert len(messages) > 100  # both happened, and nothing else did
    assert not any("\n" in message for message in messages)


REQUIRED = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "global_head_dim layer_types sliding_window rms_norm_eps attention_k_eq_v num_kv_shared_layers use_double_wide_mlp "
    "hidden_size_per_layer_input"
)


@pytest.mark.parametrize("key", REQUIRED.split())
def test_nothing_that_shapes_the_model_is_guessed(key: str) -> None:
    with pytest.raises(MlxImplError, match=f"^{key}: got no such key"):
        parse_config(g.without(E2B, key))


def test_a_config_that_exists_is_valid() -> None:
    config = parse_config(E2B)
    with pytest.raises(MlxImplError, match="num_kv_shared_layers"):
        dataclasses.replace(config, num_kv_shared_layers=35)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 1  # type: ignore[misc]
