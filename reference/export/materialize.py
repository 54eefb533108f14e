"""Writes the weights of a model by rule as an ordinary checkpoint, piece by piece."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gemma4_contract import checkpoint
from gemma4_contract.files import canonical_json, write_atomic
from gemma4_contract.profiles import installed_profiles
from gemma4_contract.progress import Progress
from gemma4_contract.tensors import CHECKPOINT_DTYPES, Array
from reference.export.checkpoint import PYTORCH_FORMAT
from reference.export.errors import ExportError
from reference.models import Model
from reference.streaming.matrix import Matrix
from reference.streaming.weights import by_rule

GROUP_SIZE = 64
BITS = (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    """One tensor of the file: its header, and the function that gives its bytes in pieces."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[bytes]]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * CHECKPOINT_DTYPES[self.dtype].itemsize


def materialize(
    model: Model, folder: Path, *, shards: int, bits: int | None, progress: Progress, dtype: str = "bf16"
) -> None:
    """Write config.json and the tensors in the dtype of a profile, matrices quantised by MLX if `bits` is given.

    An unfinished file ends in `.partial`; the next call continues after its last whole tensor. ExportError if the
    folder holds another model.
    """
    stored = installed_profiles()[dtype]
    config = copy.deepcopy(model.config_json)
    for part in (config, config.get("text_config", {})):
        if "dtype" in part:
            part["dtype"] = stored.dtype
    if bits is not None:
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": bits, "mode": "affine"}
    described = canonical_json(config)
    target = folder / "config.json"
    if target.exists() and target.read_bytes() != described:
        raise ExportError(f"{target}: got another configuration, expected none or that of {model.id}: choose another")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list(_tensors(model, stored.storage, bits))
    total, done = sum(tensor.size for tensor in tensors), 0
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        part = tensors[shard * len(tensors) // shards : (shard + 1) * len(tensors) // shards]
        file = checkpoint.SINGLE if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        weight_map |= dict.fromkeys((tensor.name for tensor in part), file)
        for tensor in _written(folder / file, part):
            progress(done // 1_000_000, total // 1_000_000, tensor.name)
            done += tensor.size
    progress(total // 1_000_000, total // 1_000_000, "done")
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_atomic(folder / checkpoint.INDEX, canonical_json(index))
    write_atomic(target, described)  # last: a folder with a configuration is whole


def _written(path: Path, tensors: list[_Tensor]) -> Iterator[_Tensor]:
    """Write a safetensors file, yielding each tensor before it is written; an existing file is left unchanged."""
    header: dict[str, Any] = {"__metadata__": PYTORCH_FORMAT}
    begin = 0
    for tensor in tensors:
        offsets = [begin, begin + tensor.size]
        header |= {tensor.name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}}
        begin += tensor.size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    head = len(head).to_bytes(8, "little") + head
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(head)) != head:
                expected = "none or those of this model, shards and bits"
                raise ExportError(f"{path}: got other tensors, expected {expected}: choose another folder")
        yield from tensors
        return
    unfinished = path.with_name(f"{path.name}.partial")
    there = unfinished.stat().st_size if unfinished.exists() else 0
    with unfinished.open("r+b" if there else "wb") as file:
        if there < len(head) or file.read(len(head)) != head:
            file.seek(0)
            file.write(head)
            there = 0
        end = len(head)
        for tensor in tensors:
            yield tensor
            if there < end + tensor.size:
                file.seek(end)
                file.truncate()
                for piece in tensor.pieces():
                    file.write(piece)
            end += tensor.size
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def _tensors(model: Model, dtype: str, bits: int | None) -> Iterator[_Tensor]:
    for name, value in by_rule(model, CHECKPOINT_DTYPES[dtype]).items():
        stored = name.replace("model.", model.tensor_prefix, 1)
        if not isinstance(value, Matrix):
            data = value.astype(CHECKPOINT_DTYPES[dtype]).tobytes()
            yield _Tensor(name=stored, dtype=dtype, shape=value.shape, pieces=partial(iter, [data]))
        elif bits is None:
            yield _Tensor(name=stored, dtype=dtype, shape=value.shape, pieces=partial(_plain, value))
        elif len(value.shape) == 2:
            matrices = partial(_blocks, value)
            yield from _quantized(stored.removesuffix(".weight"), value.shape, matrices, bits)
        else:
            yield from _quantized_experts(stored, value, bits)


def _quantized_experts(name: str, stack: Matrix, bits: int) -> Iterator[_Tensor]:
    """The quantised experts as mlx-community stores them: gates and ups apart."""
    layer, _, fused = name.rpartition("experts.")
    experts, rows, width = stack.shape
    parts = {"down_proj": slice(rows)}
    if fused == "gate_up_proj":
        parts = {"gate_proj": slice(rows // 2), "up_proj": slice(rows // 2, rows)}
    for part, taken in parts.items():
        module = f"{layer.removesuffix('.')}{checkpoint.SPLIT_EXPERTS}{part}"
        shape = (experts, taken.stop - (taken.start or 0), width)
        yield from _quantized(module, shape, partial(_parts_of_each, stack, taken), bits)


def _quantized(
    module: str, shape: tuple[int, ...], matrices: Callable[[], Iterator[Array]], bits: int
) -> Iterator[_Tensor]:
    """The codes, scales and biases of the matrices that `matrices` gives piece by piece."""
    *rows, width = shape
    for part, dtype, size in (
        ("weight", "U32", width * bits // 32),
        ("scales", "BF16", width // GROUP_SIZE),
        ("biases", "BF16", width // GROUP_SIZE),
    ):
        pieces = partial(_codes, matrices, bits, part)
        yield _Tensor(name=f"{module}.{part}", dtype=dtype, shape=(*rows, size), pieces=pieces)


def _plain(value: Matrix) -> Iterator[bytes]:
    return (block.tobytes() for block in _blocks(value))


def _blocks(value: Matrix) -> Iterator[Array]:
    return (value.rows(block) for block in value.blocks())


def _parts_of_each(stack: Matrix, taken: slice) -> Iterator[Array]:
    return (stack[expert][taken] for expert in range(stack.shape[0]))


def _codes(matrices: Callable[[], Iterator[Array]], bits: int, part: str) -> Iterator[bytes]:
    """Codes, scales or biases of the matrices that MLX quantises, one after the other."""
    import mlx.core as mx

    for matrix in matrices():
        plain = mx.array(np.ascontiguousarray(matrix).view(np.uint16)).view(mx.bfloat16)
        packed, scales, biases = mx.quantize(plain, group_size=GROUP_SIZE, bits=bits)
        numbers = {"weight": packed, "scales": scales.view(mx.uint16), "biases": biases.view(mx.uint16)}
        yield np.array(numbers[part]).tobytes()
