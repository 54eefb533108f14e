"""The taps of a model in execution order: names, axes, and the taps that each is computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from reference.config import TextConfig

Array = npt.NDArray[Any]
Recorder = Callable[[str, Array], None]
"""Called with a tap's full name and tensor as the forward pass reaches it."""

HIDDEN = ("B", "L", "D")
QUERY = ("B", "H", "L", "E")
KEY = ("B", "K", "L", "E")
PER_LAYER = ("B", "L", "N", "P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """A named point of the forward pass."""

    name: str
    axes: tuple[str, ...]
    parents: tuple[str, ...]

    @property
    def is_routing(self) -> bool:
        """Whether the tap holds a choice of experts, its parent being the router's logits."""
        return self.name.rpartition(".")[2] == "combine"


def silent(name: str, value: Array) -> None:
    """The recorder that records nothing."""


def scoped(record: Recorder, prefix: str) -> Recorder:
    """A recorder that puts `prefix` before every name."""
    return lambda name, value: record(prefix + name, value)


def output_of(layer: int) -> str:
    """The tap that enters a layer: the previous layer's output, or the embedding."""
    return "model.embed_tokens" if layer == 0 else f"model.layers.{layer - 1}.output"


def model_taps(config: TextConfig) -> list[Tap]:
    """Every tap of a forward pass."""
    taps = [Tap(name="model.embed_tokens", axes=HIDDEN, parents=())]
    if config.hidden_size_per_layer_input:
        taps += ple_taps(("model.embed_tokens",))
    for layer in range(config.num_hidden_layers):
        taps += layer_taps(config, layer)
    last = output_of(config.num_hidden_layers)
    taps.append(Tap(name="model.norm", axes=HIDDEN, parents=(last,)))
    taps.append(Tap(name="logits.raw", axes=("B", "L", "V"), parents=("model.norm",)))
    taps.append(Tap(name="logits", axes=("B", "L", "V"), parents=("logits.raw",)))
    return taps


def ple_taps(hidden: tuple[str, ...]) -> list[Tap]:
    """The taps of the per-layer embeddings."""
    rows, context = "model.embed_tokens_per_layer", "model.per_layer_projection_norm"
    return [
        Tap(name=rows, axes=PER_LAYER, parents=()),
        Tap(name=context, axes=PER_LAYER, parents=hidden),
        Tap(name="model.ple", axes=PER_LAYER, parents=(rows, context)),
    ]


def layer_taps(config: TextConfig, layer: int) -> list[Tap]:
    """The taps of one layer, under their full names."""
    prefix = f"model.layers.{layer}."
    return [
        Tap(name=prefix + name, axes=axes, parents=tuple(_full(prefix, parent) for parent in parents))
        for name, axes, parents in _layer_taps(config, layer)
    ]


def _full(prefix: str, parent: str) -> str:
    return parent if parent.startswith("model.") else prefix + parent


def _layer_taps(config: TextConfig, layer: int) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Name below the layer, axes, parents (below the layer, or full from `model.`)."""
    entry = output_of(layer)
    yield "input_layernorm", HIDDEN, (entry,)
    yield from attention_taps(config, layer)
    yield "post_attention_layernorm", HIDDEN, ("self_attn.o_proj",)
    yield "residual_1", HIDDEN, (entry, "post_attention_layernorm")
    yield "pre_feedforward_layernorm", HIDDEN, ("residual_1",)
    yield "mlp.act", ("B", "L", "F"), ("pre_feedforward_layernorm",)
    yield "mlp.down_proj", HIDDEN, ("mlp.act",)
    branch: tuple[str, ...] = ("mlp.down_proj",)
    if config.enable_moe_block:
        yield "router.proj", ("B", "L", "X"), ("residual_1",)
        yield "router.combine", ("B", "L", "X"), ("router.proj",)
        yield "pre_feedforward_layernorm_2", HIDDEN, ("residual_1",)
        yield "experts", HIDDEN, ("pre_feedforward_layernorm_2", "router.combine")
        yield "post_feedforward_layernorm_1", HIDDEN, ("mlp.down_proj",)
        yield "post_feedforward_layernorm_2", HIDDEN, ("experts",)
        branch = ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2")
    yield "post_feedforward_layernorm", HIDDEN, branch
    yield "residual_2", HIDDEN, ("residual_1", "post_feedforward_layernorm")
    last: tuple[str, ...] = ("residual_2",)
    if config.hidden_size_per_layer_input:
        yield "ple_gated", ("B", "L", "P"), ("residual_2", "model.ple")
        yield "per_layer_projection", HIDDEN, ("ple_gated",)
        yield "post_per_layer_input_norm", HIDDEN, ("per_layer_projection",)
        last = ("residual_2", "post_per_layer_input_norm")
    yield "output", HIDDEN, last


def attention_taps(config: TextConfig, layer: int) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Name below the layer, axes and parents of the taps of a layer's attention."""
    donor = f"model.layers.{config.kv_donor(layer)}.self_attn."
    yield "self_attn.q_norm", QUERY, ("input_layernorm",)
    yield "self_attn.q_rope", QUERY, ("self_attn.q_norm",)
    if not config.is_kv_shared(layer):
        yield "self_attn.k_norm", KEY, ("input_layernorm",)
        yield "self_attn.k_rope", KEY, ("self_attn.k_norm",)
        yield "self_attn.v_norm", KEY, ("input_layernorm",)
    keys, values = donor + "k_rope", donor + "v_norm"
    yield "self_attn.probs", ("B", "H", "L", "S"), ("self_attn.q_rope", keys)
    yield "self_attn.context", ("B", "L", "H*E"), ("self_attn.q_rope", keys, "self_attn.probs", values)
    yield "self_attn.o_proj", HIDDEN, ("self_attn.context",)
