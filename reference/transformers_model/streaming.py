"""transformers' decoder on models larger than memory: a layer's weights exist only while it runs.

L query length, D hidden, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear

from gemma4_contract.progress import Progress
from reference.streaming.matrix import Matrix, RuleMatrix
from reference.transformers_model import rule
from reference.transformers_model.arrays import TORCH_DTYPES, Array, DType, to_torch
from reference.transformers_model.build import empty_model, fill_buffers, refuse_empty
from reference.transformers_model.capture import recording
from reference.transformers_model.lift import lifting


def device() -> str:
    """An NVIDIA GPU where there is one (Apple's know no float64), else the processor."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def run(
    fields: Mapping[str, Any],
    weights: Mapping[str, Any],
    ids: Array,
    rows: Sequence[int],
    *,
    dtype: DType,
    wanted: Collection[str],
    take: Callable[[str, Array], object],
    progress: Progress,
) -> None:
    """Run the decoder on ids [1, L] in one call, and `take` each wanted tap; logits of `rows` alone.

    Args:
        fields: the fields of a config.json's `text_config`.
        weights: exact in `dtype`, under the names of Gemma4ForCausalLM's state dict, matrices as `streaming.Matrix`.
        dtype: in float64 transformers' islands of float32 are lifted.

    Raises:
        ValueError: for a configuration that is not Gemma 4's.
    """
    lifted, target = dtype == "float64", torch.device(device())
    model = empty_model(fields, TORCH_DTYPES[dtype], "eager")
    inner: Any = model.model
    present, tokens = np.unique(ids, return_inverse=True)  # only the rows of these ids of the tables
    for name in ("embed_tokens", "embed_tokens_per_layer"):
        if (table := getattr(inner, name, None)) is not None:
            table.weight = _parameter(_tensor(weights[f"model.{name}.weight"][present], model.dtype, target))
    for name in ("per_layer_model_projection", "per_layer_projection_norm", "norm"):
        if (module := getattr(inner, name, None)) is not None:
            module.weight = _parameter(_whole(weights[f"model.{name}.weight"], model.dtype, target))
    fill_buffers(model, lifted)
    head: Any = _Head(weights["model.embed_tokens.weight"], model.dtype, target)
    model.lm_head = head
    count = len(inner.layers)

    def fill(index: int, layer: nn.Module) -> None:
        progress(index, count + 1, f"layer {index}")
        prefix = f"model.layers.{index}."
        held = {name: _whole(weights[prefix + name], model.dtype, target) for name in layer.state_dict()}
        layer.load_state_dict(held, assign=True)
        layer.requires_grad_(False)
        refuse_empty(layer)

    def empty(index: int, layer: nn.Module) -> None:
        layer.to("meta")
        if index == count - 1:
            progress(count, count + 1, "logits")

    with torch.inference_mode(), lifting(lifted), recording(TORCH_DTYPES[dtype], wanted, take) as recorder:
        recorder.model(model)
        for index, layer in enumerate(inner.layers):
            layer.register_forward_pre_hook(lambda module, _args, index=index: fill(index, module))
            recorder.layer(model, index, probs=False)  # which sees the output before the layer is emptied
            layer.register_forward_hook(lambda module, _args, _output, index=index: empty(index, module))
        for module in (inner.rotary_emb, inner.embed_tokens, getattr(inner, "embed_tokens_per_layer", None)):
            if module is not None:
                module.to(target)
        model(
            input_ids=torch.tensor(tokens.reshape(ids.shape), device=target),
            position_ids=torch.arange(ids.shape[1], device=target)[None],
            attention_mask=torch.ones(ids.shape, dtype=torch.bool, device=target),
            use_cache=False,
            logits_to_keep=torch.tensor(list(rows), device=target),
        )
    progress(count + 1, count + 1, "done")


class _Head(nn.Module):
    """The tied head, whose rows come in blocks: x W^T, [1, L, D] -> [1, L, V]."""

    def __init__(self, table: Matrix, dtype: torch.dtype, target: torch.device) -> None:
        super().__init__()
        self._table, self._dtype, self._target = table, dtype, target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blocks = _blocks(self._table, self._dtype, self._target)
        return torch.cat([linear(x, block) for block in blocks], -1)


def _whole(value: Any, dtype: torch.dtype, target: torch.device) -> torch.Tensor:
    if not isinstance(value, Matrix):
        return _tensor(value, dtype, target)
    if target.type == "cpu":  # all rows at once: blocks of many sizes would fragment the heap by gigabytes
        return _tensor(value.rows(slice(0, math.prod(value.shape[:-1]))).reshape(value.shape), dtype, target)
    return torch.cat(list(_blocks(value, dtype, target))).reshape(value.shape)


def _blocks(matrix: Matrix, dtype: torch.dtype, target: torch.device) -> Iterator[torch.Tensor]:
    for block in matrix.blocks():
        if isinstance(matrix, RuleMatrix) and target.type != "cpu":  # NumPy makes them four times as fast there
            yield rule.rows(matrix, block, dtype, target)
        else:
            yield _tensor(matrix.rows(block), dtype, target)


def _tensor(array: Array, dtype: torch.dtype, target: torch.device) -> torch.Tensor:
    return to_torch(array, dtype).to(target)


def _parameter(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
