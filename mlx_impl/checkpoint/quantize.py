"""Quantised weights as MLX stores them: integers of a few bits, with a scale and a bias for every group.

w = scale * integer + bias. A matrix [out, in] is stored as `weight` [out, in * bits/32] of 32-bit words, and `scales`
and `biases` [out, in/group_size]. A module is quantised if it has scales; config.json says how.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_impl.checkpoint import names
from mlx_impl.errors import problem, shown
from mlx_impl.model.params import Block

BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
PARTS = ("weight", "scales", "biases")
_KEYS = ("quantization", "quantization_config")  # mlx-lm writes the same under both


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one module is quantised."""

    bits: int
    group_size: int

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shapes of `weight`, `scales` and `biases` of a matrix or stack [..., out, in]."""
        groups = (*shape[:-1], shape[-1] // self.group_size)
        return {"weight": (*shape[:-1], shape[-1] * self.bits // 32), "scales": groups, "biases": groups}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What a config.json declares: a default format, and the formats of modules that differ, by our module names."""

    default: Format
    overrides: Mapping[str, Format]

    def of(self, module: str) -> Format:
        """The format of a module that has scales. Source: `quantization`."""
        return self.overrides.get(module, self.default)


def parse_quantization(raw: Mapping[str, Any], where: str) -> Quantization | None:
    """The quantisation that a config.json declares; None if it declares none.

    Raises MlxImplError for a method other than MLX's affine one, and for sizes that MLX has no kernels for.
    """
    block = next((raw[key] for key in _KEYS if raw.get(key)), None)
    if block is None:
        return None
    if not isinstance(block, dict) or "bits" not in block:
        got = shown(block.get("quant_method", block) if isinstance(block, dict) else block)
        raise problem(
            f"{where}: quantization", got=got, expected="MLX's own, with bits and group_size", cure="convert it to MLX"
        )
    # The value False means that a module is not quantised: such a module has no scales either.
    inner = {names.our_name(key): value for key, value in block.items() if isinstance(value, dict)}
    return Quantization(
        default=_format(block, f"{where}: quantization"),
        overrides={module: _format(value, f"{where}: quantization of {module}") for module, value in inner.items()},
    )


def _format(block: Mapping[str, Any], where: str) -> Format:
    mode, bits, group_size = block.get("mode", "affine"), block.get("bits", 4), block.get("group_size", 64)
    for name, got, known in (
        ("mode", mode, ("affine",)),
        ("bits", bits, BITS),
        ("group_size", group_size, GROUP_SIZES),
    ):
        if got not in known or isinstance(got, bool):
            expected = " or ".join(str(value) for value in known)
            raise problem(f"{where}: {name}", got=shown(got), expected=expected, cure="convert it with these")
    return Format(bits=bits, group_size=group_size)


def quantized_modules(stored: Iterable[str], quantization: Quantization | None, where: str) -> dict[str, Format]:
    """Module -> format of every module that has scales among tensors of these names.

    Raises MlxImplError if there are scales and config.json declares no quantisation.
    """
    modules = [name.removesuffix(".scales") for name in stored if name.endswith(".scales")]
    if not modules:
        return {}
    if quantization is None:
        raise problem(
            f"{where}: quantization",
            got=f"none, although there are scales of {modules[0]}",
            expected="bits and group_size",
            cure="take the config.json that belongs to these weights",
        )
    return {module: quantization.of(module) for module in modules}


def packed_shapes(shapes: Mapping[str, tuple[int, ...]], modules: Mapping[str, Format]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a checkpoint with these modules quantised, from their plain shapes.

    Raises MlxImplError if the width of a matrix is not a multiple of the group size.
    """
    packed: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if module in modules and module != name:
            if shape[-1] % modules[module].group_size:
                expected = f"a multiple of group_size {modules[module].group_size}"
                raise problem(f"{module}: width", got=str(shape[-1]), expected=expected, cure="correct config.json")
            packed |= {f"{module}.{part}": cut for part, cut in modules[module].shapes(shape).items()}
        else:
            packed[name] = shape
    return packed


def replace_modules(model: Block, modules: Mapping[str, Format]) -> None:
    """Replace plain modules by quantised ones, into which weights can then be loaded."""
    for path, form in modules.items():
        *outer, name = path.split(".")
        owner = functools.reduce(_member, outer, model)
        plain = getattr(owner, name)
        if isinstance(plain, mx.array):  # a stack of experts
            setattr(owner, name, QuantizedStack(plain.shape, form))
        else:
            setattr(owner, name, plain.to_quantized(group_size=form.group_size, bits=form.bits))


def _member(owner: Any, name: str) -> Any:
    return owner[int(name)] if name.isdigit() else getattr(owner, name)


class QuantizedStack(Block):
    """Quantised matrices [X, out, in], one for each expert."""

    def __init__(self, shape: tuple[int, ...], form: Format) -> None:
        super().__init__()
        self.form = form
        shapes = form.shapes(shape)
        self.weight = mx.zeros(shapes["weight"], dtype=mx.uint32)
        self.scales = mx.zeros(shapes["scales"])
        self.biases = mx.zeros(shapes["biases"])

    def __call__(self, index: int) -> Callable[[mx.array], mx.array]:
        """A function that multiplies by the transposed matrix of one expert: x [..., in] -> [..., out]."""

        def multiply(x: mx.array) -> mx.array:
            return mx.quantized_matmul(
                x,
                self.weight[index],
                scales=self.scales[index],
                biases=self.biases[index],
                transpose=True,
                group_size=self.form.group_size,
                bits=self.form.bits,
            )

        return multiply

    def gathered(self, x: mx.array, indices: mx.array) -> mx.array:
        """`params.gathered` with these matrices."""
        return mx.gather_qmm(
            x,
            self.weight,
            scales=self.scales,
            biases=self.biases,
            rhs_indices=indices,
            transpose=True,
            group_size=self.form.group_size,
            bits=self.form.bits,
        )
