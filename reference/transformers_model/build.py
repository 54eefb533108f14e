"""Build transformers' Gemma4ForCausalLM from a text configuration and named weights, without initialising any."""

import copy
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import Gemma4ForCausalLM, Gemma4TextConfig
from transformers.utils import logging as transformers_logging

from reference.transformers_model.arrays import Array, to_torch
from reference.transformers_model.lift import lifting

Attention = Literal["eager", "sdpa"]

_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"
_KV_OF_LAYER = re.compile(r"model\.layers\.(\d+)\.self_attn\.(?:k_proj|v_proj|k_norm)\.weight")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' log to errors for a while."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def text_config_of(fields: Mapping[str, Any]) -> Gemma4TextConfig:
    """Turn the fields of a `text_config` into transformers' configuration.

    `gemma4_unified_text` is the same decoder without PLE and MoE, so it is built from Gemma4TextConfig too.

    Raises:
        ValueError: for another `model_type`, an untied head, `layer_types` that transformers would rewrite, or fields
            that it refuses.
    """
    given = copy.deepcopy(dict(fields))
    model_type = given.pop("model_type", "gemma4_text")
    if model_type not in ("gemma4_text", "gemma4_unified_text"):
        raise ValueError(f"model_type: got {model_type!r}, expected 'gemma4_text' or 'gemma4_unified_text'")
    if model_type == "gemma4_unified_text":
        given.setdefault("hidden_size_per_layer_input", 0)  # Gemma4TextConfig's own default is 256
    if not given.get("tie_word_embeddings", True):
        raise ValueError("tie_word_embeddings: got false, expected true (every Gemma 4 text model ties its head)")
    asked = copy.copy(given.get("layer_types"))
    try:
        with _quiet():
            config = Gemma4TextConfig(**given)
    except StrictDataclassError as refused:
        raise ValueError(f"text_config: {' '.join(str(refused).split())}") from refused
    if list(config.layer_types or ()) != list(asked or ()):
        raise ValueError(f"layer_types: transformers rewrites {asked} to {config.layer_types}; end in full_attention")
    return config


def build_model(
    fields: Mapping[str, Any], weights: Mapping[str, Array], dtype: torch.dtype, attention: Attention, *, lifted: bool
) -> Gemma4ForCausalLM:
    """Build the model in evaluation mode, its parameters copied from `weights` and cast to `dtype`.

    RoPE's frequencies and the embedding scales are float32, as transformers has them at any dtype; float64 if `lifted`.

    Raises:
        ValueError: for a configuration that is not Gemma 4's, or for missing, unexpected or misshapen weights.
    """
    model = empty_model(fields, dtype, attention)
    model.load_state_dict(_checked(model, weights, dtype), strict=False, assign=True)
    model.lm_head.weight = model.model.embed_tokens.weight
    fill_buffers(model, lifted)
    refuse_empty(model)
    return model


def empty_model(fields: Mapping[str, Any], dtype: torch.dtype, attention: Attention) -> Gemma4ForCausalLM:
    """The model in evaluation mode, all of its tensors on the meta device. ValueError as in `build_model`."""
    config = text_config_of(fields)
    with _quiet(), torch.device("meta"):
        # experts: transformers' default kernel refuses float64
        model: Gemma4ForCausalLM = Gemma4ForCausalLM._from_config(  # type: ignore[no-untyped-call]  # theirs to annotate
            config, dtype=dtype, attn_implementation=attention, experts_implementation="eager"
        )
    model.requires_grad_(False)
    model.train(False)
    return model


def refuse_empty(module: torch.nn.Module) -> None:
    """ValueError for tensors still on the meta device: a release that adds a buffer must not go unnoticed."""
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if left:
        raise ValueError(f"tensors of the model that nothing fills: {left}")


def _checked(model: Gemma4ForCausalLM, weights: Mapping[str, Array], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the state dictionary to load, after checking names and shapes against the model's own."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items() if name != _HEAD}
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        raise ValueError(f"weights missing: {missing}")
    unexpected = sorted(name for name in weights.keys() - expected.keys() if not _redundant(model, weights, name))
    if unexpected:
        raise ValueError(f"weights unexpected: {unexpected}")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ValueError(f"{name}: got shape {weights[name].shape}, expected {shape}")
    return {name: to_torch(weights[name], dtype) for name in expected}


def _redundant(model: Gemma4ForCausalLM, weights: Mapping[str, Array], name: str) -> bool:
    """Say whether a surplus weight is one that checkpoints may carry: the tied head, or K/V of a KV-shared layer."""
    if name == _HEAD:
        return np.array_equal(weights[_HEAD], weights[_EMBEDDING])
    match = _KV_OF_LAYER.fullmatch(name)
    layers = model.model.layers
    return match is not None and int(match[1]) < len(layers) and layers[int(match[1])].self_attn.is_kv_shared_layer


def fill_buffers(model: Gemma4ForCausalLM, lifted: bool) -> None:
    """Give the buffers that no checkpoint holds their values: RoPE's frequencies and sqrt(D), sqrt(P)."""
    inner = model.model
    with lifting(lifted):
        inner.rotary_emb = type(inner.rotary_emb)(inner.config)
    for name in ("embed_tokens", "embed_tokens_per_layer"):
        if (table := getattr(inner, name, None)) is not None:
            dtype = torch.float64 if lifted else torch.float32
            table.embed_scale = torch.tensor(table.scalar_embed_scale, dtype=dtype)
