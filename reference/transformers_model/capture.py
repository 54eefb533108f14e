"""Capture the taps of docs/FIXTURES.md from a running Gemma4ForCausalLM.

B batch, L query length, S key length, D hidden, H query heads, K key/value heads, E head dim, P per-layer width,
N layers, F feed-forward width, X experts. Everything is copied at once, because the decoder multiplies the residual
stream by `layer_scalar` in place.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import Gemma4ForCausalLM
from transformers.models.gemma4 import modeling_gemma4

from reference.transformers_model.arrays import Array, to_numpy

Taps = dict[str, Array]
Observe = Callable[[torch.Tensor], None]


class Recorder:
    """Hooks on a model, taken off by `stack`, that put arrays of `dtype` into `taps`; of all taps where none are named.

    `take`, where it is given, is called with each tap in the place of that.
    """

    def __init__(
        self,
        stack: ExitStack,
        dtype: torch.dtype,
        wanted: Collection[str] | None = None,
        take: Callable[[str, Array], None] | None = None,
    ) -> None:
        self.taps: Taps = {}
        self._stack = stack
        self._dtype = dtype
        self._wanted = wanted
        self._take = take or self.taps.__setitem__
        self._rows: tuple[int, int] = (0, 0)  # B, L of the call under way
        self._residual: torch.Tensor | None = None  # B L D, before the feed-forward block
        self._ropes: list[str] = []  # names of the RoPE calls to come, in order

    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Copy a tensor into the taps, if it is wanted."""
        if self._wanted is None or name in self._wanted:
            self._take(name, to_numpy(tensor, self._dtype))

    def output(self, module: nn.Module, observe: Callable[[Any], None]) -> None:
        """Call `observe` with each output of `module`."""
        handle = module.register_forward_hook(lambda _module, _args, output: observe(output))
        self._stack.callback(handle.remove)

    def input(self, module: nn.Module, observe: Observe) -> None:
        """Call `observe` with the first argument of each call of `module`."""
        handle = module.register_forward_pre_hook(lambda _module, args: observe(args[0]))
        self._stack.callback(handle.remove)

    def result(self, owner: Any, name: str, observe: Observe) -> None:
        """Call `observe` with each result of the function `owner.name`, which is wrapped until the stack unwinds."""
        original = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            returned = original(*args, **kwargs)
            observe(returned)
            return returned

        restore = (setattr, owner, name, original) if name in vars(owner) else (delattr, owner, name)
        setattr(owner, name, wrapper)
        self._stack.callback(*restore)

    def ropes(self) -> None:
        """Watch RoPE, which is no module: in each layer the queries come first, then the keys."""
        self.result(modeling_gemma4, "apply_rotary_pos_emb", self._rope)

    def _rope(self, rotated: torch.Tensor) -> None:
        self.put(self._ropes.pop(0), rotated.transpose(1, 2))  # B L H E -> B H L E

    def model(self, model: Gemma4ForCausalLM) -> None:
        """Hook all that lies outside the layers, except `logits`, which the caller has in hand."""
        inner = model.model
        self.output(inner.embed_tokens, lambda t: self.put("model.embed_tokens", t))
        if inner.hidden_size_per_layer_input:
            axes = (inner.config.num_hidden_layers, inner.hidden_size_per_layer_input)  # N, P
            name = "model.embed_tokens_per_layer"
            self.output(inner.embed_tokens_per_layer, lambda t: self.put(name, t.reshape(*t.shape[:-1], *axes)))
            normed = "model.per_layer_projection_norm"
            self.output(inner.per_layer_projection_norm, lambda t: self.put(normed, t))
            self.result(inner, "project_per_layer_inputs", lambda t: self.put("model.ple", t))
        self.output(inner.norm, lambda t: self.put("model.norm", t))
        self.output(model.lm_head, lambda t: self.put("logits.raw", t))

    def layer(self, model: Gemma4ForCausalLM, index: int, *, probs: bool) -> None:
        """Hook one decoder layer; `probs` asks for the attention weights, which only eager attention returns."""
        layer, prefix = model.model.layers[index], f"model.layers.{index}."

        def put(name: str) -> Observe:
            return lambda t: self.put(prefix + name, t)

        def begin(hidden: torch.Tensor) -> None:
            self._rows = (hidden.shape[0], hidden.shape[1])
            self._expect_ropes(prefix)

        self.input(layer, begin)
        for name in ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "mlp.down_proj"):
            self.output(layer.get_submodule(name), put(name))
        self._attention(layer.self_attn, put, probs=probs)
        self.input(layer.mlp.down_proj, put("mlp.act"))
        if layer.enable_moe_block:
            self._experts(layer, put)
        self._residuals(layer, put)
        self.output(layer, put("output"))

    def attention(self, model: Gemma4ForCausalLM, index: int, *, probs: bool) -> None:
        """Hook the attention of one layer that is about to run alone."""
        prefix = f"model.layers.{index}."
        self._expect_ropes(prefix)
        self._attention(
            model.model.layers[index].self_attn, lambda name: lambda t: self.put(prefix + name, t), probs=probs
        )

    def _expect_ropes(self, prefix: str) -> None:
        self._ropes = [f"{prefix}self_attn.q_rope", f"{prefix}self_attn.k_rope"]

    def _attention(self, attention: nn.Module, put: Callable[[str], Observe], *, probs: bool) -> None:
        """Hook an attention module; a KV-shared one makes no keys or values of its own."""

        def heads_first(name: str) -> Observe:
            return lambda t: put(name)(t.transpose(1, 2))  # B L H E -> B H L E

        for name in ("q_norm", "k_norm", "v_norm"):
            if hasattr(attention, name):
                self.output(attention.get_submodule(name), heads_first(f"self_attn.{name}"))
        if probs:
            self.output(attention, lambda returned: put("self_attn.probs")(returned[1]))  # B H L S
        projection = attention.get_submodule("o_proj")
        self.input(projection, put("self_attn.context"))
        self.output(projection, put("self_attn.o_proj"))

    def _experts(self, layer: nn.Module, put: Callable[[str], Observe]) -> None:
        """Hook the MoE block, which sees its tokens as one axis of B*L."""

        def rows(name: str) -> Observe:
            return lambda t: put(name)(t.reshape(*self._rows, t.shape[-1]))

        def combine(routed: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
            probabilities, weights, chosen = routed  # B*L X, B*L top-k, B*L top-k
            dense = torch.zeros_like(probabilities, dtype=weights.dtype).scatter(-1, chosen, weights)
            rows("router.combine")(dense)

        self.output(layer.get_submodule("router.proj"), rows("router.proj"))
        self.output(layer.get_submodule("router"), combine)
        for name in ("pre_feedforward_layernorm_2", "experts"):
            self.output(layer.get_submodule(name), rows(name))
        for name in ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2"):
            self.output(layer.get_submodule(name), put(name))

    def _residuals(self, layer: nn.Module, put: Callable[[str], Observe]) -> None:
        """Hook the residual stream and the PLE block between its two last additions."""

        def first(residual: torch.Tensor) -> None:
            self._residual = residual
            put("residual_1")(residual)

        def after(branch: torch.Tensor) -> None:
            put("post_feedforward_layernorm")(branch)
            assert self._residual is not None
            if not layer.hidden_size_per_layer_input:  # else the gate receives it
                put("residual_2")(self._residual + branch)
            self._residual = None

        self.input(layer.get_submodule("pre_feedforward_layernorm"), first)
        self.output(layer.get_submodule("post_feedforward_layernorm"), after)
        if layer.hidden_size_per_layer_input:
            self.input(layer.get_submodule("per_layer_input_gate"), put("residual_2"))
            self.input(layer.get_submodule("per_layer_projection"), put("ple_gated"))
            for name in ("per_layer_projection", "post_per_layer_input_norm"):
                self.output(layer.get_submodule(name), put(name))


@contextmanager
def recording(
    dtype: torch.dtype, wanted: Collection[str] | None = None, take: Callable[[str, Array], None] | None = None
) -> Iterator[Recorder]:
    """Give a recorder whose hooks and wrappers are all gone afterwards, whatever happened meanwhile."""
    with ExitStack() as stack:
        recorder = Recorder(stack, dtype, wanted, take)
        recorder.ropes()
        yield recorder
