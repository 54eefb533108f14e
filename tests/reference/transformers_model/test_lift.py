"""What transformers computes in float32 is float64 when lifted; the model is transformers' own otherwise."""

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gemma4_contract.tensors import Array

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from reference.transformers_model import TransformersModel  # noqa: E402 (after importorskip)
from tests.support.transformers_models import (  # noqa: E402 (after importorskip)
    IDS,
    LENGTH,
    POSITIONS,
    config_of,
    each_kind,
    error,
    forward,
    model_of,
    truth,
    weights_of,
    worst,
)


@each_kind
def test_eager_agrees_with_sdpa(kind: str) -> None:
    eager, sdpa = forward(kind, "float32", "eager"), forward(kind, "float32", "sdpa")
    assert worst(sdpa, eager) < 1e-4
    assert worst(sdpa, truth(kind)) < 1e-4


@each_kind
def test_lifting_removes_an_error_of_float32_size(kind: str) -> None:
    assert 1e-10 < error(forward(kind)["logits"], truth(kind)["logits"]) < 1e-5


def rms_norm(taps: Mapping[str, Array]) -> float:
    x = taps["model.embed_tokens"]
    weight = weights_of("moe")["model.layers.0.input_layernorm.weight"]
    wanted = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight
    return error(taps["model.layers.0.input_layernorm"], wanted)


def embedding_scale(taps: Mapping[str, Array]) -> float:
    return error(taps["model.embed_tokens"], weights_of("moe")["model.embed_tokens.weight"][IDS] * np.sqrt(96))


def attention_softmax(taps: Mapping[str, Array]) -> float:
    return float(np.abs(taps["model.layers.0.self_attn.probs"].sum(-1) - 1).max())


def router_softmax(taps: Mapping[str, Array]) -> float:
    weights = taps["model.layers.0.router.combine"] / weights_of("moe")["model.layers.0.router.per_expert_scale"]
    return float(np.abs(weights.sum(-1) - 1).max())


def rope(taps: Mapping[str, Array], layer: int, theta: float, width: int, rotated: int) -> float:
    """Rotate the pairs (j, j + width/2), j < rotated, by position * theta^(-2j/width)."""
    x = taps[f"model.layers.{layer}.self_attn.q_norm"]
    frequency = np.where(np.arange(width // 2) < rotated, theta ** (-2 * np.arange(width // 2) / width), 0)
    angle = np.arange(LENGTH)[:, None] * frequency
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angle), np.sin(angle)
    wanted = np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return error(taps[f"model.layers.{layer}.self_attn.q_rope"], wanted)


ISLANDS: dict[str, Callable[[Mapping[str, Array]], float]] = {
    "RMSNorm": rms_norm,
    "RoPE sliding": lambda taps: rope(taps, 0, 1e4, 16, 8),
    "RoPE full": lambda taps: rope(taps, 2, 1e6, 32, 4),
    "attention softmax": attention_softmax,
    "router softmax": router_softmax,
    "embedding scale": embedding_scale,
}


@pytest.mark.parametrize("island", ISLANDS)
def test_each_island_is_float64_when_lifted_and_float32_when_not(island: str) -> None:
    assert ISLANDS[island](truth("moe")) < 2e-15
    assert 1e-9 < ISLANDS[island](forward("moe")) < 1e-5


def test_the_scale_of_ple_is_lifted_too() -> None:
    table = weights_of("ple")["model.embed_tokens_per_layer.weight"][IDS].reshape(2, LENGTH, 5, 8)
    assert error(truth("ple")["model.embed_tokens_per_layer"], table * np.sqrt(8)) < 1e-15
    assert error(forward("ple")["model.embed_tokens_per_layer"], table * np.sqrt(8)) > 1e-9


@pytest.mark.parametrize(("dtype", "attention"), [("float32", "eager"), ("bfloat16", "eager"), ("float64", "sdpa")])
def test_lifting_is_refused_where_it_cannot_be(dtype: str, attention: str) -> None:
    with pytest.raises(ValueError, match="lifted"):
        model_of("dense", dtype, attention, lifted=True)


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_bit_for_bit_the_model_that_transformers_builds(kind: str, dtype: str) -> None:
    unified = config_of(kind)["model_type"] == "gemma4_unified_text"  # its own classes, which we build as gemma4_text
    family = "Gemma4Unified" if unified else "Gemma4"
    config = getattr(transformers, f"{family}TextConfig")(**config_of(kind))
    plain = getattr(transformers, f"{family}ForCausalLM")._from_config(
        config, dtype=getattr(torch, dtype), attn_implementation="eager", experts_implementation="eager"
    )
    weights = {name: torch.tensor(array) for name, array in weights_of(kind).items()}
    plain.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    with torch.inference_mode():
        logits = plain.eval()(torch.tensor(IDS), use_cache=False).logits
    assert np.array_equal(forward(kind, dtype)["logits"].astype(np.float64), logits.double().numpy())


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_dtype_in_which_weights_come_does_not_matter(dtype: Any) -> None:
    weights = {name: array.astype(dtype) for name, array in weights_of("ple").items()}
    for array in weights.values():
        array.flags.writeable = False  # as from a memory-mapped file
    model = TransformersModel(config_of("ple"), weights, dtype="bfloat16", attention="eager")
    got = model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    assert all(np.array_equal(got[name], tap) for name, tap in forward("ple", "bfloat16").items())
