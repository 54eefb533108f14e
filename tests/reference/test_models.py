"""The models of the suite: published configurations with sizes alone changed, and fit to judge with."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma4_contract import Fixtures, Policy
from reference.cases.forward import golden_ids, golden_length
from reference.config import TextConfig
from reference.export.acceptance import acceptance, check_acceptance
from reference.export.checkpoint import model_weights
from reference.export.errors import ExportError
from reference.family import FAMILY, FULL, SLIDING
from reference.models import MODELS, Model
from reference.weights import bf16

MINIS = {"e2b-mini", "e4b-mini", "12b-mini", "26b-a4b-mini", "31b-mini"}
TRAPS = {"trap-irregular", "trap-softcap", "trap-eps", "trap-gqa", "trap-ple-unshared", "trap-moe"}
SIZES = {
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "hidden_size_per_layer_input",
    "head_dim",
    "global_head_dim",
    "num_attention_heads",
    "num_key_value_heads",
    "num_global_key_value_heads",
    "num_experts",
    "sliding_window",
    "vocab_size",
    "vocab_size_per_layer_input",
    "num_hidden_layers",
    "layer_types",
    "num_kv_shared_layers",
}
NO_SIZE: dict[str, dict[str, Any]] = {
    "trap-softcap": {"final_logit_softcapping": 12.0},
    "trap-eps": {"rms_norm_eps": 1e-5},
    "trap-moe": {"top_k_experts": 3},
}

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
each_mini = pytest.mark.parametrize("model", [MODELS[name] for name in sorted(MINIS)], ids=sorted(MINIS))


def policy() -> Policy:
    return Fixtures().policy


def test_every_member_has_a_mini_and_every_gap_a_trap() -> None:
    assert MODELS.keys() == MINIS | TRAPS
    assert {MODELS[name].member.id for name in MINIS} == FAMILY.keys()
    assert {name for name, model in MODELS.items() if model.nested} == MINIS  # both layouts of a checkpoint
    assert {name for name, model in MODELS.items() if model.redundant_shared_kv} == {"e4b-mini"}


@each_model
def test_sizes_alone_differ_from_the_published_configuration(model: Model) -> None:
    published = model.member.text_config
    assert model.text_config.keys() == published.keys()
    changed = {key: value for key, value in model.text_config.items() if value != published[key]}
    no_size = {key: value for key, value in changed.items() if key not in SIZES}
    assert no_size == NO_SIZE.get(model.id, {})
    assert changed.items() <= dict(model.overrides).items()  # the card tells all of them


def test_an_override_of_a_field_that_the_member_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"odd overrides fields that google/gemma-4-E2B-it lacks: \['moe_inter"):
        Model(
            id="odd",
            member=FAMILY["e2b"],
            purpose="",
            overrides={"moe_intermediate_size": 8, "head_dim": 8},
            nested=True,
        )


@each_mini
def test_minis_keep_the_pattern_of_layers(model: Model) -> None:
    published, kinds = model.member.text_config["layer_types"], model.text_config["layer_types"]
    assert kinds == published[: len(kinds)]
    config = model.config
    shared = [layer for layer in range(config.num_hidden_layers) if config.is_kv_shared(layer)]
    assert bool(shared) == bool(model.member.text_config["num_kv_shared_layers"])
    if shared:
        assert {config.layer_types[layer] for layer in shared} == {SLIDING, FULL}
        period = config.layer_types.index(FULL) + 1
        assert shared[0] % period == 0  # as published: 15 = 3 * 5 and 24 = 4 * 6


@each_model
def test_promises_about_sizes(model: Model) -> None:
    config = model.config
    assert config.head_dim != config.global_head_dim
    assert set(config.layer_types) == {SLIDING, FULL}
    assert config.sliding_window == 8
    root = math.sqrt(config.hidden_size)
    assert abs(float(bf16(root)) - root) / root > 1e-3  # the rounding of the embedding scale shows
    if model.id in TRAPS:
        assert config.num_hidden_layers <= 6
        assert config.vocab_size == 128
    if config.moe_intermediate_size:
        assert 2 * config.moe_intermediate_size < config.hidden_size
        assert config.top_k_experts is not None
        assert config.num_experts is not None
        assert config.top_k_experts < config.num_experts
    assert golden_length(model) == 19  # 2w + 3


@each_model
def test_donors_are_not_adjacent_to_their_users(model: Model) -> None:
    config = model.config
    gaps = {layer: layer - config.kv_donor(layer) for layer in range(config.num_hidden_layers)}
    shared = {layer: gap for layer, gap in gaps.items() if config.is_kv_shared(layer)}
    assert len(shared) == config.num_kv_shared_layers
    assert all(gap >= 2 for gap in shared.values()), shared
    assert all(gap == 0 for layer, gap in gaps.items() if layer not in shared)


def test_traps_are_what_their_purpose_says() -> None:
    irregular = MODELS["trap-irregular"].config
    kinds = irregular.layer_types
    for period in range(1, len(kinds) // 2 + 1):
        assert any(kinds[i] != kinds[i % period] for i in range(len(kinds))), period
    first_shared = irregular.first_kv_shared_layer
    assert kinds[first_shared - 1] == FULL
    assert irregular.kv_donor(first_shared) == first_shared - 2
    assert MODELS["trap-softcap"].config.final_logit_softcapping == 12.0
    assert MODELS["trap-eps"].config.rms_norm_eps == 1e-5
    gqa = MODELS["trap-gqa"].config
    assert [gqa.num_attention_heads / gqa.kv_heads_of(layer) for layer in range(4)] == [3.0] * 4
    unshared = MODELS["trap-ple-unshared"].config
    assert unshared.hidden_size_per_layer_input > 0
    assert unshared.use_double_wide_mlp
    assert unshared.num_kv_shared_layers == 0
    assert {unshared.mlp_width_of(layer) for layer in range(4)} == {unshared.intermediate_size}
    mixture = MODELS["trap-moe"].config
    assert (mixture.num_experts, mixture.top_k_experts) == (7, 3)
    double = MODELS["e2b-mini"].config
    assert [double.mlp_width_of(layer) for layer in range(10)] == [56] * 5 + [112] * 5


@each_model
def test_config_json_reads_back_as_the_model(model: Model) -> None:
    raw = json.loads(json.dumps(model.config_json))
    assert TextConfig.from_dict(raw) == model.config
    assert ("text_config" in raw) == model.nested
    if model.nested:
        assert raw["model_type"] == model.member.top_level["model_type"]
        assert model.tensor_prefix == "model.language_model."
    else:
        assert raw["architectures"] == ["Gemma4ForCausalLM"]
        assert model.tensor_prefix == "model."


@each_model
def test_mlx_impl_and_transformers_accept_the_model(model: Model, tmp_path: Path) -> None:
    pytest.importorskip("mlx.core")
    pytest.importorskip("transformers")
    from mlx_impl import load_config
    from reference.transformers_model.build import text_config_of

    (tmp_path / "config.json").write_text(json.dumps(model.config_json))
    assert load_config(tmp_path).layer_types == model.config.layer_types
    assert text_config_of(model.text_config).layer_types == list(model.config.layer_types)


@each_model
def test_acceptance(model: Model) -> None:
    figures = acceptance(model, model_weights(model))
    assert 0 < figures["f32"] <= 5e-6
    assert figures["f32"] * 100 < figures["bf16"] <= 0.1  # bf16 costs far more than f32, or it was not bf16
    assert 0 <= figures["echo"] <= 0.1
    check_acceptance(model, figures, policy())


def test_the_echo_of_a_model_at_its_initial_scalars_and_signs_is_seen() -> None:
    model = MODELS["31b-mini"]
    built = model_weights(model)
    built["model.norm.weight"] = np.abs(built["model.norm.weight"])
    built |= {name: np.ones(1) for name in built if name.endswith("layer_scalar")}
    figures = acceptance(model, built)
    assert figures["echo"] > 0.9
    with pytest.raises(ExportError, match="31b-mini: got echo"):
        check_acceptance(model, figures, policy())


@pytest.mark.parametrize("name", ["f32", "bf16", "echo"])
def test_bad_figures_are_refused_by_name(name: str) -> None:
    limits = {"f32": 5e-6, "bf16": 0.1, "echo": 0.1}
    model = MODELS["trap-eps"]
    check_acceptance(model, limits, policy())  # at the limit, still good
    for bad in (limits[name] * 1.01, math.nan, math.inf):
        with pytest.raises(ExportError) as caught:
            check_acceptance(model, limits | {name: bad}, policy())
        assert str(caught.value) == f"trap-eps: got {name} {bad:.2e}, expected at most {limits[name]:.2e}"


def test_golden_ids_are_drawn_per_model_and_seed() -> None:
    drawn = {(model.id, seed): golden_ids(model, seed).tobytes() for model in MODELS.values() for seed in range(3)}
    assert len(set(drawn.values())) == len(drawn)
