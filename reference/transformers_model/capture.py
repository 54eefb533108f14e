"""Capture taps from a running Gemma4ForCausalLM.

The graph says which module shows which tap (`gemma4_contract.module_reads`). No module shows five kinds of taps, and
they are read by hand:

* `q_rope` and `k_rope`: calls of the function `apply_rotary_pos_emb`;
* `k_read` and `v_read`: arguments of the function `eager_attention_forward`;
* `model.ple`: the result of the method `project_per_layer_inputs`;
* `router.combine`: the router's weights and indices, laid out over all experts;
* `residual_2` of models without per-layer embeddings, where no module takes it: the sum of its two parents.

Everything is copied at once, because the decoder multiplies the residual stream by `layer_scalar` in place.
B batch, L query length, H heads, E head dim, X experts.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Gemma4ForCausalLM
from transformers.models.gemma4 import modeling_gemma4

from gemma4_contract.graph import text_graph
from gemma4_contract.module_reads import Read, laid_back, laid_out, reads_of, shown
from reference.transformers_model.arrays import Array, to_numpy, to_torch

Taps = dict[str, Array]
Observe = Callable[[torch.Tensor], None]


class TapHooks:
    """Hooks on a model that record the wanted taps (all if None) as arrays of `dtype` in `taps`; `stack` removes them.

    `take`, if given, is called with each tap instead. The tensor of a tap that has a `given` value is
    overwritten with it, in place, after it was copied; `replaced` names these taps.
    """

    def __init__(
        self,
        stack: ExitStack,
        dtype: torch.dtype,
        wanted: Collection[str] | None = None,
        take: Callable[[str, Array], object] | None = None,
        given: Mapping[str, Array] | None = None,
    ) -> None:
        self.taps: Taps = {}
        self.replaced: set[str] = set()
        self._given = given or {}
        self._stack = stack
        self._dtype = dtype
        self._wanted = wanted
        self._take = take or self.taps.__setitem__
        self._sizes: dict[str, int] = {}  # B and L of the call under way, N and P of the model
        self._residual: torch.Tensor | None = None  # B L D, before the feed-forward block
        self._ropes: list[str] = []  # names of the RoPE calls to come, in order
        self._attended: set[int] = set()  # layers whose eager attention is watched

    def record(self, name: str, tensor: torch.Tensor) -> None:
        """Record a copy of a tensor, if the tap is wanted."""
        if self._wanted is None or name in self._wanted:
            self._take(name, to_numpy(tensor, self._dtype))

    def replace(self, name: str, tensor: torch.Tensor, as_there: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Overwrite a tensor with the tap's given value, if it has one, in the layout of the model."""
        if name in self._given:
            tensor.copy_(as_there(to_torch(self._given[name], self._dtype)))
            self.replaced.add(name)

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

        def observed(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            returned = original(*args, **kwargs)
            observe(returned)
            return returned

        self._wrap(owner, name, observed)

    def _wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        """Call `around` with the function `owner.name` and its arguments instead of it, until the stack unwinds."""
        original = getattr(owner, name)
        restore = (setattr, owner, name, original) if name in vars(owner) else (delattr, owner, name)
        setattr(owner, name, partial(around, original))
        self._stack.callback(*restore)

    def ropes(self) -> None:
        """Watch RoPE, which is no module: in each layer the queries come first, then the keys."""
        self.result(modeling_gemma4, "apply_rotary_pos_emb", self._rope)

    def _rope(self, rotated: torch.Tensor) -> None:
        name = self._ropes.pop(0)
        self.record(name, rotated.transpose(1, 2))  # B L H E -> B H L E
        self.replace(name, rotated, lambda given: given.transpose(1, 2))

    def attention(self) -> None:
        """Watch eager attention, which is no module either, in the layers that ask for its weights."""
        self._wrap(modeling_gemma4, "eager_attention_forward", self._attend)

    def _attend(
        self, original: Callable[..., Any], module: nn.Module, q: Any, k: Any, v: Any, *args: Any, **kw: Any
    ) -> Any:
        if module.layer_idx in self._attended:
            for name, tensor in (("k_read", k), ("v_read", v)):  # B K S E
                tap = f"model.layers.{module.layer_idx}.self_attn.{name}"
                self.record(tap, tensor)
                self.replace(tap, tensor, lambda given: given)
        return original(module, q, k, v, *args, **kw)

    def model(self, model: Gemma4ForCausalLM) -> None:
        """Hook all that lies outside the layers."""
        config = model.config
        self._sizes |= {"N": config.num_hidden_layers, "P": config.hidden_size_per_layer_input}
        self._modules(model, None, probs=False)
        if config.hidden_size_per_layer_input:
            self.result(model.model, "project_per_layer_inputs", lambda t: self.record("model.ple", t))

    def layer(self, model: Gemma4ForCausalLM, index: int, *, probs: bool) -> None:
        """Hook one decoder layer; `probs` asks for the attention weights, which only eager attention returns."""
        layer, prefix = model.model.layers[index], f"model.layers.{index}."

        def begin(hidden: torch.Tensor) -> None:
            self._sizes |= {"B": hidden.shape[0], "L": hidden.shape[1]}
            self._expect_ropes(prefix)

        self.input(layer, begin)
        self._modules(model, index, probs=probs)
        if probs:
            self._attended.add(index)
        if layer.enable_moe_block:
            self.output(layer.router, lambda routed: self._routed(f"{prefix}router.combine", routed))
        if not layer.hidden_size_per_layer_input and not self._given:  # a sum computed here is no answer to a sub-graph
            self._sum(layer, f"{prefix}residual_2")

    def _modules(self, model: Gemma4ForCausalLM, index: int | None, *, probs: bool) -> None:
        """Hook the modules that the graph names, if the model has them: a KV-shared layer has no keys."""
        for read in reads_of(text_graph(), index):
            module = _found(model, read.module)
            if module is not None and (probs or not read.needs_eager):
                register = self.input if read.at == "input" else self.output
                register(module, self._observer(read))

    def _observer(self, read: Read) -> Callable[[Any], None]:
        def observe(value: Any) -> None:
            tensor = shown(read, value)
            self.record(read.tap, laid_out(tensor, read, self._sizes))
            if not read.needs_eager:  # attention weights are shown after their use
                self.replace(read.tap, tensor, partial(laid_back, read=read, shape=tensor.shape))

        return observe

    def _expect_ropes(self, prefix: str) -> None:
        self._ropes = [f"{prefix}self_attn.q_rope", f"{prefix}self_attn.k_rope"]

    def _routed(self, name: str, routed: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        self.record(name, self._combine(routed))
        _, weights, chosen = routed  # B*L top-k
        self.replace(name, weights, lambda given: given.flatten(0, 1).topk(chosen.shape[-1]).values)
        self.replace(name, chosen, lambda given: given.flatten(0, 1).topk(chosen.shape[-1]).indices)

    def _combine(self, routed: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The router's choice as B L X: probabilities B*L X, weights and indices B*L top-k."""
        probabilities, weights, chosen = routed
        dense = torch.zeros_like(probabilities, dtype=weights.dtype).scatter(-1, chosen, weights)
        return dense.reshape(self._sizes["B"], self._sizes["L"], -1)

    def _sum(self, layer: nn.Module, name: str) -> None:
        """Record the sum of the input and the output of the feed-forward block."""

        def before(residual: torch.Tensor) -> None:
            self._residual = residual

        def after(branch: torch.Tensor) -> None:
            assert self._residual is not None
            self.record(name, self._residual + branch)
            self._residual = None

        self.input(layer.get_submodule("pre_feedforward_layernorm"), before)
        self.output(layer.get_submodule("post_feedforward_layernorm"), after)


def _found(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


@contextmanager
def recording(
    dtype: torch.dtype,
    wanted: Collection[str] | None = None,
    take: Callable[[str, Array], object] | None = None,
    given: Mapping[str, Array] | None = None,
) -> Iterator[TapHooks]:
    """Give hooks that are all removed afterwards, whatever happened meanwhile."""
    with ExitStack() as stack:
        hooks = TapHooks(stack, dtype, wanted, take, given)
        hooks.ropes()
        hooks.attention()
        yield hooks
