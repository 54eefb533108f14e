"""Taps of a loaded mlx-lm Gemma 4 model, read by standing in front of its sub-modules while a run lasts.

B batch, L query length, D hidden, H query heads, K key/value heads, E head dim, P per-layer width, N layers,
F feed-forward width, X experts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx

from conformance.adapters.mlx_arrays import length_axis

Read = Callable[[tuple[Any, ...], Any], mx.array]
Notes = Callable[[tuple[Any, ...], Any], None]


class Tapes:
    """What was recorded: for each tap the arrays of the successive calls, joined along L at the end."""

    def __init__(self) -> None:
        """Start empty."""
        self.pieces: dict[str, list[mx.array]] = {}

    def add(self, tap: str, value: mx.array) -> None:
        """Append one call's array to a tap."""
        self.pieces.setdefault(tap, []).append(value)

    def joined(self) -> dict[str, mx.array]:
        """Every tap over all its calls; L is axis 2 of B H L E and axis 1 elsewhere."""
        return {tap: mx.concatenate(pieces, axis=length_axis(tap)) for tap, pieces in self.pieces.items()}

    def evaluate(self) -> None:
        """Compute what was recorded so far, so that no graph grows over the calls."""
        mx.eval([piece for pieces in self.pieces.values() for piece in pieces[-1:]])


class Recorder:
    """Stands in for a callable: calls it, hands arguments and result to `notes`, and lends all its other attributes."""

    def __init__(self, inner: Any, notes: Notes, method: str | None = None) -> None:
        """Record calls of `inner`, or of its method `method` alone."""
        self._inner = inner
        self._notes = notes
        self._method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the inner callable."""
        result = self._inner(*args, **kwargs)
        if self._method is None:
            self._notes(args, result)
        return result

    def __getattr__(self, name: str) -> Any:
        """The inner callable's attribute, itself recorded when it is the chosen method."""
        value = getattr(self._inner, name)
        return Recorder(value, self._notes) if name == self._method else value


def _output(_args: tuple[Any, ...], result: Any) -> mx.array:
    value: mx.array = result
    return value


def _input(args: tuple[Any, ...], _result: Any) -> mx.array:
    value: mx.array = args[0]
    return value


def _heads_first(_args: tuple[Any, ...], result: Any) -> mx.array:
    value: mx.array = result.transpose(0, 2, 1, 3)  # B L H E -> B H L E
    return value


def dense_combine(chosen: tuple[mx.array, mx.array], experts: int) -> mx.array:
    """Router output (indices B L k, weights B L k) as B L X, zero for experts not chosen, in the weights' dtype."""
    indices, weights = chosen
    return mx.put_along_axis(mx.zeros((*indices.shape[:-1], experts), weights.dtype), indices, weights, axis=-1)


LAYER_TAPS: dict[str, tuple[str, Read]] = {
    "input_layernorm": ("input_layernorm", _output),
    "self_attn.q_norm": ("self_attn.q_norm", _heads_first),
    "self_attn.k_norm": ("self_attn.k_norm", _heads_first),
    "self_attn.v_norm": ("self_attn.v_norm", _heads_first),
    "self_attn.context": ("self_attn.o_proj", _input),
    "self_attn.o_proj": ("self_attn.o_proj", _output),
    "post_attention_layernorm": ("post_attention_layernorm", _output),
    "residual_1": ("pre_feedforward_layernorm", _input),
    "pre_feedforward_layernorm": ("pre_feedforward_layernorm", _output),
    "mlp.act": ("mlp.down_proj", _input),
    "mlp.down_proj": ("mlp.down_proj", _output),
    "router.proj": ("router.proj", _output),
    "pre_feedforward_layernorm_2": ("pre_feedforward_layernorm_2", _output),
    "experts": ("experts", _output),
    "post_feedforward_layernorm_1": ("post_feedforward_layernorm_1", _output),
    "post_feedforward_layernorm_2": ("post_feedforward_layernorm_2", _output),
    "post_feedforward_layernorm": ("post_feedforward_layernorm", _output),
    # Without PLE nothing takes residual_2 alone: it is multiplied by layer_scalar at once.
    "residual_2": ("per_layer_input_gate", _input),
    "ple_gated": ("per_layer_projection", _input),
    "per_layer_projection": ("per_layer_projection", _output),
    "post_per_layer_input_norm": ("post_per_layer_input_norm", _output),
}

MODEL_TAPS: dict[str, tuple[str, Read]] = {
    "model.embed_tokens_per_layer": ("_project_per_layer_inputs", lambda args, _: args[1]),
    "model.per_layer_projection_norm": ("per_layer_projection_norm", _output),
    "model.ple": ("_project_per_layer_inputs", _output),
    "model.norm": ("norm", _output),
}


@contextmanager
def standing_in(owner: Any, name: str, notes: Notes, method: str = "") -> Iterator[None]:
    """Put a Recorder in the place of `owner.name` (a sub-module, or a method of the instance) and take it out again.

    Sub-modules are entries of the MLX module's dict; a method is shadowed by an instance attribute.
    """
    inner = getattr(owner, name)
    recorder = Recorder(inner, notes, method or None)
    if name in owner:
        owner[name] = recorder
        try:
            yield
        finally:
            owner[name] = inner
    else:
        object.__setattr__(owner, name, recorder)
        try:
            yield
        finally:
            object.__delattr__(owner, name)


@contextmanager
def layer_entry(layers: list[Any], index: int, notes: Notes) -> Iterator[None]:
    """Put a Recorder in the place of one decoder layer and take it out again."""
    inner = layers[index]
    layers[index] = Recorder(inner, notes)
    try:
        yield
    finally:
        layers[index] = inner


def _find(root: Any, path: str) -> tuple[Any, str] | None:
    """The module that owns the last part of a dotted path, and that part; None where the model has no such module."""
    *parents, name = path.split(".")
    for parent in parents:
        root = getattr(root, parent, None)
    return (root, name) if getattr(root, name, None) is not None else None


def _rope_notes(tapes: Tapes, prefix: str, has_kv: bool, want: set[str]) -> Notes:
    """Notes for the rope of one layer: an own-KV layer rotates keys first, then queries; a KV-shared one queries."""
    calls = 0

    def notes(_args: tuple[Any, ...], result: Any) -> None:
        nonlocal calls
        tap = prefix + ("self_attn.k_rope" if has_kv and calls % 2 == 0 else "self_attn.q_rope")
        calls += 1
        if tap in want:
            tapes.add(tap, result)

    return notes


def reading(tapes: Tapes, reads: Mapping[str, Read]) -> Notes:
    """Notes that add to each tap what its function reads off a call's arguments and result."""

    def notes(args: tuple[Any, ...], result: Any) -> None:
        for tap, read in reads.items():
            tapes.add(tap, read(args, result))

    return notes


def _enter_table(
    stack: ExitStack, tapes: Tapes, root: Any, prefix: str, table: dict[str, tuple[str, Read]], want: set[str]
) -> None:
    by_path: dict[str, dict[str, Read]] = {}
    for name, (path, read) in table.items():
        if prefix + name in want:
            by_path.setdefault(path, {})[prefix + name] = read
    for path, reads in by_path.items():
        if (found := _find(root, path)) is not None:
            stack.enter_context(standing_in(*found, reading(tapes, reads)))


def _enter_layer(stack: ExitStack, tapes: Tapes, layer: Any, want: set[str]) -> None:
    """Stand in front of the wanted parts of one decoder layer, its own output excepted."""
    prefix = f"model.layers.{layer.layer_idx}."
    _enter_table(stack, tapes, layer, prefix, LAYER_TAPS, want)
    if want & {prefix + "self_attn.q_rope", prefix + "self_attn.k_rope"}:
        notes = _rope_notes(tapes, prefix, layer.self_attn.has_kv, want)
        stack.enter_context(standing_in(layer.self_attn, "rope", notes))
    if prefix + "router.combine" in want and layer.enable_moe:
        experts = layer.router.config.num_experts
        read: dict[str, Read] = {prefix + "router.combine": lambda _, result: dense_combine(result, experts)}
        stack.enter_context(standing_in(layer, "router", reading(tapes, read)))


@contextmanager
def tapped_layer(layer: Any, want: Iterable[str]) -> Iterator[Tapes]:
    """Record the wanted taps inside one `DecoderLayer`, `output` excepted (the caller holds it)."""
    tapes = Tapes()
    with ExitStack() as stack:
        _enter_layer(stack, tapes, layer, set(want))
        yield tapes


@contextmanager
def tapped_model(model: Any, want: Iterable[str]) -> Iterator[Tapes]:
    """Record the wanted taps of a `gemma4_text.Model`, `logits` excepted (the caller holds them)."""
    tapes, wanted = Tapes(), set(want)
    text = model.model
    with ExitStack() as stack:
        _enter_table(stack, tapes, text, "", MODEL_TAPS, wanted)
        if "logits.raw" in wanted:
            owner, name, method = (
                (text, "embed_tokens", "as_linear") if model.tie_word_embeddings else (model, "lm_head", "")
            )
            stack.enter_context(standing_in(owner, name, reading(tapes, {"logits.raw": _output}), method))
        for index, layer in enumerate(list(text.layers)):
            _enter_layer(stack, tapes, layer, wanted)
            reads: dict[str, Read] = {}
            if index == 0 and "model.embed_tokens" in wanted:
                reads["model.embed_tokens"] = _input
            if f"model.layers.{index}.output" in wanted:
                reads[f"model.layers.{index}.output"] = lambda _, result: result[0]
            if reads:
                stack.enter_context(layer_entry(text.layers, index, reading(tapes, reads)))
        yield tapes
