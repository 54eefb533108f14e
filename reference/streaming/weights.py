"""The weights of a model for a streaming pass, by their names in the state dict.

Vectors are arrays; matrices and stacks are of class `Matrix`, which makes or reads rows when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemma4_contract import FixtureError, checkpoint
from gemma4_contract.tensors import Stored
from reference import loading, weights
from reference.config import TextConfig
from reference.models import Model
from reference.streaming.matrix import Matrix, Q, RuleMatrix
from reference.streaming.stored import FusedExperts, QuantizedMatrix, StoredMatrix

_FLOATS = ("F64", "F32", "F16", "BF16")
_CODES = "U32"
_PARTS = ("weight", "scales", "biases")


def by_rule(model: Model, dtype: np.dtype[Any], q: Q = weights.q) -> dict[str, Any]:
    """The weights by rule; matrices take their numbers from `q`."""
    config, made = model.config, dict[str, Any]()
    for name, shape in weights.tensor_shapes(config).items():
        if len(shape) == 1:
            made[name] = weights.tensor(model.id, name, shape, config, mini=False)
        else:
            fan_in = weights.fan_in(name, shape, config)
            made[name] = RuleMatrix(f"{model.id}/{name}", shape, fan_in, dtype, q)
    return made


def of_checkpoint(directory: Path, config: TextConfig, dtype: np.dtype[Any]) -> dict[str, Any]:
    """The weights of an ordinary checkpoint in any layout, its matrices plain or quantised by MLX.

    FixtureError or ValueError for files that cannot be read, and for tensors that are missing, too many or misshapen.
    """
    stored = checkpoint.text_tensors(directory)
    widths = {name: shape[-1] for name, shape in weights.tensor_shapes(config, redundant_shared_kv=True).items()}
    made: dict[str, Any] = {}
    for name, tensor in stored.items():
        module = name.rpartition(".")[0]
        if stored.get(f"{module}.weight", tensor).dtype == _CODES:
            if name.endswith(".weight"):
                made[name] = _quantized(stored, module, widths, dtype)
        elif tensor.dtype not in _FLOATS:
            raise FixtureError(
                tensor.path,
                got=f"dtype {tensor.dtype} in {name}",
                expected=f"one of {', '.join(_FLOATS)}, or {_CODES} with scales and biases",
                cure="convert the checkpoint to bfloat16, or quantise it as MLX does",
            )
        else:
            made[name] = tensor.whole() if len(tensor.shape) == 1 else StoredMatrix(tensor, dtype)
    return loading.checked(_fused(made), config)


def _quantized(stored: Mapping[str, Stored], module: str, widths: Mapping[str, int], dtype: np.dtype[Any]) -> Matrix:
    names = [f"{module}.{part}" for part in _PARTS]
    for name in names:
        if name not in stored:
            raise ValueError(f"{name}: got no such tensor, expected one: of quantised weights affine ones are read")
    weight, scales, biases = (stored[name] for name in names)
    layer, split, part = module.partition(checkpoint.SPLIT_EXPERTS)
    fused = f"{layer}.experts.{'down' if part.startswith('down') else 'gate_up'}_proj" if split else names[0]
    if fused not in widths:
        raise ValueError(f"{names[0]}: got a tensor, expected none of that name")
    return QuantizedMatrix((weight, scales, biases), widths[fused], dtype)


def _fused(made: Mapping[str, Any]) -> dict[str, Any]:
    """Experts in mlx-community's layout under the names of the state dict."""
    fused: dict[str, Any] = {}
    for name, value in made.items():
        layer, split, part = name.partition(checkpoint.SPLIT_EXPERTS)
        up = made.get(f"{layer}{split}up_proj.weight")
        if part == "down_proj.weight":
            fused[f"{layer}.experts.down_proj"] = value
        elif part == "gate_proj.weight" and up is not None:
            fused[f"{layer}.experts.gate_up_proj"] = FusedExperts(value, up)
        elif part != "up_proj.weight":
            fused[name] = value
    return fused
