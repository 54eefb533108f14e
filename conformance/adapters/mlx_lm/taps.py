"""Taps of a loaded mlx-lm Gemma 4 model: by the graph where its names are Hugging Face's, elsewhere by hand.

B batch, L query length, H query heads, E head dim, X experts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx

from conformance.adapters.module_tree import TapRecords
from conformance.adapters.module_tree_mlx import MlxTapRecords, Notes, mlx_taps, reading, standing_in

ELSEWHERE = {"model.embed_tokens", "model.embed_tokens_per_layer"}
"""Taps that the modules of these names do not show: mlx-lm scales the embeddings after the modules return them."""

_Read = Callable[[tuple[Any, ...], Any], mx.array]


def dense_combine(chosen: tuple[mx.array, mx.array], experts: int) -> mx.array:
    """Router output (indices B L k, weights B L k) as B L X, zero for experts not chosen, in the weights' dtype."""
    indices, weights = chosen
    return mx.put_along_axis(mx.zeros((*indices.shape[:-1], experts), weights.dtype), indices, weights, axis=-1)


@contextmanager
def tapped_model(
    model: Any, want: Collection[str], given: Mapping[str, mx.array] | None = None
) -> Iterator[MlxTapRecords]:
    """Record the wanted taps of a `gemma4_text.Model`; the caller then calls the model or one of its layers.

    After a tap is recorded, the model continues with its `given` value if there is one.
    Without per-layer embeddings no module takes `residual_2` alone: it is multiplied by `layer_scalar` at once.
    """
    wanted = set(want)
    with mlx_taps(model, model.args, wanted - ELSEWHERE, given=given) as records, ExitStack() as stack:
        for owner, name, method, values in _by_hand(model):
            if values := {tap: read for tap, read in values.items() if tap in wanted}:
                stack.enter_context(standing_in(owner, name, reading(records, values), method))
        for index, layer in enumerate(model.layers):
            if layer.enable_moe and (combine := f"model.layers.{index}.router.combine") in wanted:
                stack.enter_context(standing_in(layer, "router", _router_notes(records, combine, layer.router)))
            ropes = [f"model.layers.{index}.self_attn.{name}" for name in ("k_rope", "q_rope")]
            if not wanted.isdisjoint(ropes):
                notes = _rope_notes(records, ropes if layer.self_attn.has_kv else ropes[1:], wanted)
                stack.enter_context(standing_in(layer.self_attn, "rope", notes))
        yield records


def _by_hand(model: Any) -> Iterator[tuple[Any, str, str, dict[str, _Read]]]:
    """Owner, name and method of the calls that the graph does not describe in mlx-lm, and how their taps are read."""
    text = model.model
    yield text.layers, "0", "", {"model.embed_tokens": lambda args, _: args[0]}
    if text.hidden_size_per_layer_input:
        project: dict[str, _Read] = {"model.embed_tokens_per_layer": lambda args, _: args[1], "model.ple": _result}
        yield text, "_project_per_layer_inputs", "", project
    if model.tie_word_embeddings:
        yield text, "embed_tokens", "as_linear", {"logits.raw": _result}


def _result(_args: tuple[Any, ...], result: Any) -> mx.array:
    value: mx.array = result
    return value


def _router_notes(records: TapRecords, tap: str, router: Any) -> Notes:
    """Notes for a router's choice: indices B L k and weights B L k."""
    top_k = router.config.top_k_experts

    def notes(_args: tuple[Any, ...], result: Any) -> None:
        indices, weights = result
        records.add(tap, dense_combine(result, router.config.num_experts))
        records.replace(tap, indices, lambda given: mx.argsort(-given, axis=-1)[..., :top_k].astype(indices.dtype))
        records.replace(tap, weights, lambda given: -mx.sort(-given, axis=-1)[..., :top_k])

    return notes


def _rope_notes(records: TapRecords, taps: list[str], want: set[str]) -> Notes:
    """Notes for the rope of one layer: an own-KV layer rotates keys first, then queries; a KV-shared one queries."""
    calls = 0

    def notes(_args: tuple[Any, ...], result: Any) -> None:
        nonlocal calls
        tap = taps[calls % len(taps)]
        calls += 1
        if tap in want:
            records.add(tap, mx.array(result))  # B H L E
            records.replace(tap, result, lambda given: given)

    return notes
