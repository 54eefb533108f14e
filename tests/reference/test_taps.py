"""Taps as declared against taps as recorded: the same names, an order that respects their parents, their shapes."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from gemma4_contract.tensors import Array
from reference.cases.forward import golden_ids
from reference.cases.layer import inner_taps, layer_kinds
from reference.export.checkpoint import model_weights
from reference.models import MODELS, Model
from reference.oracle.decoder import Decoder
from reference.taps import Tap, closed, model_taps

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())

LENGTH = 11
PLE = {"model.embed_tokens_per_layer", "model.per_layer_projection_norm", "model.ple"}
# docs/FIXTURES.md, below `model.layers.{i}.`
EVERY_LAYER = {
    "input_layernorm",
    "self_attn.q_norm",
    "self_attn.q_rope",
    "self_attn.probs",
    "self_attn.context",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "residual_1",
    "pre_feedforward_layernorm",
    "mlp.act",
    "mlp.down_proj",
    "post_feedforward_layernorm",
    "residual_2",
    "output",
}
OWN_KV = {"self_attn.k_norm", "self_attn.k_rope", "self_attn.v_norm"}
WITH_PLE = {"ple_gated", "per_layer_projection", "post_per_layer_input_norm"}
MOE = {
    "router.proj",
    "router.combine",
    "pre_feedforward_layernorm_2",
    "experts",
    "post_feedforward_layernorm_1",
    "post_feedforward_layernorm_2",
}


@cache
def recorded(model_id: str) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of everything that one forward pass records, in the order in which it does."""
    model = MODELS[model_id]
    seen: list[tuple[str, tuple[int, ...]]] = []

    def record(name: str, value: Array) -> Array:
        seen.append((name, value.shape))
        return value

    Decoder(model.config, model_weights(model)).forward(
        golden_ids(model, 0)[:, :LENGTH], np.arange(LENGTH)[None], record=record
    )
    return seen


def expected_names(raw: Mapping[str, Any]) -> set[str]:
    names = {"model.embed_tokens", "model.norm", "logits.raw", "logits"}
    names |= PLE if raw["hidden_size_per_layer_input"] else set()
    for layer in range(raw["num_hidden_layers"]):
        inner = set(EVERY_LAYER)
        inner |= OWN_KV if layer < raw["num_hidden_layers"] - raw["num_kv_shared_layers"] else set()
        inner |= WITH_PLE if raw["hidden_size_per_layer_input"] else set()
        inner |= MOE if raw["enable_moe_block"] else set()
        names |= {f"model.layers.{layer}.{name}" for name in inner}
    return names


def sizes(raw: Mapping[str, Any], name: str) -> dict[str, int]:
    """What each letter stands for at a tap, from the raw configuration."""
    layer = int(name.split(".")[2]) if name.startswith("model.layers.") else 0
    full = raw["layer_types"][layer] == "full_attention"
    shared = layer >= raw["num_hidden_layers"] - raw["num_kv_shared_layers"]
    head_dim, heads = raw["global_head_dim" if full else "head_dim"], raw["num_attention_heads"]
    kv_heads = raw["num_global_key_value_heads" if full and raw["attention_k_eq_v"] else "num_key_value_heads"]
    return {
        "B": 1,
        "L": LENGTH,
        "S": LENGTH,
        "D": raw["hidden_size"],
        "H": heads,
        "K": kv_heads,
        "E": head_dim,
        "H*E": heads * head_dim,
        "P": raw["hidden_size_per_layer_input"],
        "N": raw["num_hidden_layers"],
        "F": raw["intermediate_size"] * (2 if shared and raw["use_double_wide_mlp"] else 1),
        "V": raw["vocab_size"],
        "X": raw["num_experts"],
    }


@each_model
def test_declared_taps_are_the_recorded_ones_in_their_order_and_shape(model: Model) -> None:
    taps = model_taps(model.config)
    assert {tap.name for tap in taps} == expected_names(model.text_config)
    assert [tap.name for tap in taps] == [name for name, _ in recorded(model.id)]  # each once, none left out
    for tap, (name, shape) in zip(taps, recorded(model.id), strict=True):
        letters = sizes(model.text_config, name)
        assert tuple(letters[axis] for axis in tap.axes) == shape, name


def assert_topological(taps: list[Tap]) -> None:
    done: set[str] = set()
    for tap in taps:
        assert done.issuperset(tap.parents), tap
        assert len(set(tap.parents)) == len(tap.parents)
        assert tap.name not in done
        done.add(tap.name)


@each_model
def test_parents_come_first(model: Model) -> None:
    taps = model_taps(model.config)
    assert_topological(taps)
    assert_topological(closed([tap for tap in taps if "N" in tap.axes]))
    roots = {tap.name for tap in taps if not tap.parents}
    assert roots == {"model.embed_tokens"} | ({"model.embed_tokens_per_layer"} & {tap.name for tap in taps})
    children = {parent for tap in taps for parent in tap.parents}
    assert {tap.name for tap in taps} - children == {"logits"}  # everything else is used


@each_model
def test_taps_of_a_layer_case_have_parents_in_the_layer_alone(model: Model) -> None:
    whole = {tap.name: tap for tap in model_taps(model.config)}
    for layer in layer_kinds(model.config).values():
        taps, prefix = inner_taps(model.config, layer), f"model.layers.{layer}."
        assert [tap.name for tap in taps] == [name for name in whole if name.startswith(prefix)]
        assert_topological(taps)
        for tap in taps:
            kept = tuple(parent for parent in whole[tap.name].parents if parent.startswith(prefix))
            assert (tap.axes, tap.parents) == (whole[tap.name].axes, kept)


def test_shared_layers_have_their_donors_as_parents() -> None:
    taps = {tap.name: tap for tap in model_taps(MODELS["e2b-mini"].config)}
    for layer, donor in {5: 3, 8: 3, 9: 4, 4: 4}.items():
        prefix, other = f"model.layers.{layer}.self_attn.", f"model.layers.{donor}.self_attn."
        assert taps[prefix + "probs"].parents == (prefix + "q_rope", other + "k_rope")
        assert other + "v_norm" in taps[prefix + "context"].parents
