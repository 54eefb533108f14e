"""Taps that modules with Hugging Face's names show: which module, its argument or its result, and the layout there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gemma4_contract.graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A tap as the first argument of a module's call, or as what the call returns."""

    tap: str
    module: str
    """Path of the module; empty for the root."""
    at: Literal["input", "output"]
    item: int | str | None
    """Which item or attribute of a result that is no tensor; the first when None."""
    layout: tuple[str, ...]
    """The axes there; `B*L` is one axis of B times L entries."""
    axes: tuple[str, ...]
    """The tap's axes."""
    needs_eager: bool
    """Whether only a plain attention shows it, in one call without a cache and without pads."""


def reads_of(graph: Graph, layer: int | None) -> Iterator[Read]:
    """The taps of a layer, or of what lies outside the layers, that a module shows, if the tree has that module."""
    for node in graph.nodes:
        seen = node.huggingface
        if seen.at != "call" and node.in_layers == (layer is not None):
            yield Read(
                tap=node.named(layer),
                module=seen.module.replace("{i}", str(layer)),
                at=seen.at,
                item=seen.item,
                layout=tuple((seen.axes or node.axes).split()),
                axes=tuple(node.axes.split()),
                needs_eager=node.plans == "no-cache",
            )


def shown(read: Read, value: Any) -> Any:
    """The tensor in a module's first argument or in what it returns, in the module's layout."""
    if isinstance(read.item, str):
        return getattr(value, read.item, value)
    return value[read.item or 0] if isinstance(value, tuple | list) else value


def laid_out(tensor: Any, read: Read, sizes: Mapping[str, int]) -> Any:
    """A tensor of any framework (it has `shape`, `reshape` and `swapaxes`) with the axes of the tap.

    `sizes` holds the letters of an axis that is taken apart: B and L of the call, N and P of the model. A framework
    that keeps such axes apart gives the tap's own axes.
    """
    letters = [letter for axis in read.layout for letter in _apart(axis, read)]
    if len(letters) > len(read.layout):
        if len(tensor.shape) == len(read.axes):
            return tensor
        shape: list[int] = []
        for axis, size in zip(read.layout, tensor.shape, strict=True):
            factors = _apart(axis, read)
            shape += [size] if len(factors) == 1 else [sizes[letter] for letter in factors]
        tensor = tensor.reshape(shape)
    for place, letter in enumerate(read.axes):
        if (other := letters.index(letter)) != place:
            tensor = tensor.swapaxes(place, other)
            letters[place], letters[other] = letter, letters[place]
    return tensor


def laid_back(tensor: Any, read: Read, shape: Sequence[int]) -> Any:
    """The inverse of `laid_out`: a tensor with the tap's axes in the layout of the module, of this shape."""
    letters = list(read.axes)
    for place, letter in enumerate(letter for axis in read.layout for letter in _apart(axis, read)):
        if (other := letters.index(letter)) != place:
            tensor = tensor.swapaxes(place, other)
            letters[place], letters[other] = letter, letters[place]
    return tensor.reshape(tuple(shape))


def _apart(axis: str, read: Read) -> list[str]:
    return [axis] if axis in read.axes else axis.split("*")
