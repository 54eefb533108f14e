"""Quantised weights as MLX stores them: whole numbers of a few bits, with a scale and a bias for every group.

w = scale * number + bias. A matrix [out, in] lies in the file as `weight` [out, in * bits/32] of 32-bit words, and
`scales`, `biases` [out, in/group_size]. Which modules are quantised is seen by their scales; how, says config.json.
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
    """The block of a config.json: a format for all modules, and others for some, by our names of the modules."""

    default: Format
    overrides: Mapping[str, Format]

    def of(self, module: str) -> Format:
        """The format of a module that has scales. Source: `quantization`."""
        return self.overrides.get(module, self.default)


def parse_quantization(raw: Mapping[str, Any], where: str) -> Quantization | None:
    """The quantisation that a config.json declares, None where it declares none.

    Raises MlxImplError for another method than MLX's affine one, and for sizes that MLX has no kernels for.
    """
    block = next((raw[key] for key in _KEYS if raw.get(key)), None)
    if block is None:
        return None
    if not isinstance(block, dict) or "bits" not in block:
        got = shown(block.get("quant_method", block) if isinstance(block, dict) else block)
        raise problem(
            f"{where}: quantization", got=got, expected="MLX's own, with bits and group_size", cure="convert it to MLX"
        )
    # False says of a module that it is not quantised: the scales it lacks say so too.
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
    """The modules among tensors of these names that have scales, with their formats.

    Raises MlxImplError where config.json declares no quantisation.
    """
    modules = [name.removesuffix(".scales") for name in stored if name.endswith(".scales")]
    if not modules:
        return {}
    if quantization is None:
        raise problem(
            f"{where}: quantization",
            got=f"none, and scales of {modules[0]}",
            expected="bits and group_size",
            cure="take the config.json that belongs to these weights",
        )
    return {module: quantization.of(module) for module in modules}


def packed_shapes(shapes: Mapping[str, tuple[int, ...]], modules: Mapping[str, Format]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a checkpoint, whose plain shapes are given, with these modules quantised.

    Raises MlxImplError where a matrix is no whole number of groups wide.
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


def make_room(model: Block, modules: Mapping[str, Format]) -> None:
    """Put quantised modules into the place of plain ones, for weights to be loaded into."""
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
    """Matrices [X, out, in] of one shape, one for each expert, quantised."""

    def __init__(self, shape: tuple[int, ...], form: Format) -> None:
        super().__init__()
        self.form = form
        shapes = form.shapes(shape)
        self.weight = mx.zeros(shapes["weight"], dtype=mx.uint32)
        self.scales = mx.zeros(shapes["scales"])
        self.biases = mx.zeros(shapes["biases"])

    def __call__(self, index: int) -> Callable[[mx.array], mx.array]:
        """The matrix of one expert, as what multiplies by its transpose: x [..., in] -> [..., out]."""

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
        """The products with the matrices of several experts: `params.gathered`."""
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
