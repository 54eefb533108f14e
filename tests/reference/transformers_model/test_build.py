"""Weights and configurations that do not fit transformers' model are refused by name."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gemma4_contract.tensors import Array

pytest.importorskip("torch")
pytest.importorskip("transformers")

from reference.transformers_model import TransformersModel
from tests.support.transformers_models import FULL, IDS, POSITIONS, SLIDING, config_of, forward, weights_of


def build(kind: str, weights: Mapping[str, Array], **changes: Any) -> TransformersModel:
    return TransformersModel(config_of(kind) | changes, weights, dtype="float32", attention="eager")


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.1.layer_scalar", "model.layers.0.self_attn.k_proj.weight"]
)
def test_a_missing_weight_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"missing.*{name}"):
        build("ple", {key: array for key, array in weights_of("ple").items() if key != name})


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.v_norm.weight",
        "model.layers.2.self_attn.v_proj.weight",  # a full layer's values are its keys
        "model.layers.9.self_attn.k_proj.weight",
        "language_model.model.norm.weight",
    ],
)
def test_an_unexpected_weight_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"unexpected.*{name}"):
        build("k_eq_v", {**weights_of("k_eq_v"), name: np.ones((2, 2))})


def test_a_misshapen_weight_is_named_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"model.norm.weight: got shape \(95,\), expected \(96,\)"):
        build("dense", {**weights_of("dense"), "model.norm.weight": np.ones(95)})


def test_weights_that_checkpoints_repeat_are_ignored() -> None:
    surplus = {
        f"model.layers.3.self_attn.{name}.weight": np.full((3, 3), np.nan) for name in ("k_proj", "v_proj", "k_norm")
    }
    surplus["lm_head.weight"] = weights_of("ple")["model.embed_tokens.weight"]
    got = build("ple", {**weights_of("ple"), **surplus}).run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    assert np.array_equal(got["logits"], forward("ple", "float32")["logits"])


def test_a_head_of_its_own_is_refused() -> None:
    head = weights_of("ple")["model.embed_tokens.weight"] + 1
    with pytest.raises(ValueError, match=r"unexpected.*lm_head"):
        build("ple", {**weights_of("ple"), "lm_head.weight": head})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": [SLIDING, SLIDING, FULL, SLIDING, SLIDING]}, "layer_types"),
        ({"layer_types": None}, "layer_types"),
        ({"layer_types": [SLIDING, FULL]}, "layer_types"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"model_type": "gemma3_text"}, "model_type"),
    ],
    ids=str,
)
def test_a_configuration_that_transformers_would_change_is_refused(changes: dict[str, Any], message: str) -> None:
    given = repr(changes)
    with pytest.raises(ValueError, match=message):
        build("dense", weights_of("dense"), **changes)
    assert repr(changes) == given  # transformers rewrites the caller's own list
