"""Taps of a PyTorch module tree that keeps Hugging Face's names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from conformance.adapters.module_tree import Sizes, TapRecords, first_argument, reads
from gemma4_contract.module_reads import Read, laid_back, laid_out, shown


@contextmanager
def torch_taps(
    root: nn.Module,
    config: Sizes,
    want: Collection[str] | None = None,
    prefix: str = "model.",
    given: Mapping[str, torch.Tensor] | None = None,
) -> Iterator[TapRecords]:
    """Record the wanted taps (all if None) that modules of `root` show while the context lasts.

    The tree's names have `prefix` instead of `model.`. Tensors are copied, because a layer may change them later.
    `self_attn.probs` is recorded if the attention returns it with its output. After a tap is recorded, the tree
    continues with its `given` value if there is one.
    """
    records = TapRecords(lambda pieces, axis: torch.cat(list(pieces), axis), given)
    sizes = {"N": config.num_hidden_layers, "P": config.hidden_size_per_layer_input}
    with ExitStack() as stack:
        for layer in range(config.num_hidden_layers):
            if (module := _found(root, f"{prefix}layers.{layer}")) is not None:
                stack.callback(module.register_forward_pre_hook(_rows_of(sizes), with_kwargs=True).remove)
        for read in reads(config, want, prefix):
            if (module := _found(root, read.module)) is not None:
                stack.callback(_hook(module, read, records, sizes).remove)
        yield records


def _found(root: nn.Module, path: str) -> nn.Module | None:
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None


def _rows_of(sizes: dict[str, int]) -> Any:
    """A hook of a layer that notes B and L of the hidden state [B, L, D]."""

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sizes["B"], sizes["L"] = first_argument(args, kwargs).shape[:2]

    return note


def _hook(module: nn.Module, read: Read, records: TapRecords, sizes: dict[str, int]) -> Any:
    def take(value: Any) -> None:
        tensor = shown(read, value)
        if tensor is not None:  # attention weights of a fused attention
            records.add(read.tap, laid_out(tensor, read, sizes).detach().clone())
            if not read.needs_eager:  # attention weights are shown after their use
                records.replace(read.tap, tensor, partial(laid_back, read=read, shape=tensor.shape))

    if read.at == "output":
        return module.register_forward_hook(lambda _module, _args, output: take(output))
    return module.register_forward_pre_hook(
        lambda _module, args, kwargs: take(first_argument(args, kwargs)), with_kwargs=True
    )
