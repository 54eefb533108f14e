"""Taps of any module tree that keeps Hugging Face's names, read as the graph says, without code for each tap.

`module_tree_torch` and `module_tree_mlx` do so in PyTorch and in MLX. A tap that a tree computes elsewhere, or under
another name, is not offered, or is left out of `want` and read by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from gemma4_contract.graph import text_graph
from gemma4_contract.module_reads import Read, reads_of

Concatenate = Callable[[Sequence[Any], int], Any]
"""Joins tensors of a framework along an axis."""


class Sizes(Protocol):
    """The fields of a configuration that reading a tree needs; transformers' and mlx-lm's have them."""

    @property
    def num_hidden_layers(self) -> int: ...

    @property
    def hidden_size_per_layer_input(self) -> int: ...


class TapRecords:
    """The recorded taps: for each tap the tensors of successive calls, joined along L at the end.

    The tensor of a tap that has a `given` value is overwritten with it; `replaced` names the overwritten taps.
    """

    def __init__(self, concatenate: Concatenate, given: Mapping[str, Any] | None = None) -> None:
        """Start empty."""
        self.pieces: dict[str, list[Any]] = {}
        self.replaced: set[str] = set()
        self._concatenate = concatenate
        self._given = given or {}

    def add(self, tap: str, value: Any) -> None:
        """Append one call's tensor to a tap."""
        self.pieces.setdefault(tap, []).append(value)

    def replace(self, tap: str, tensor: Any, as_there: Callable[[Any], Any]) -> None:
        """If the tap is given, overwrite a tensor of the tree in place; `as_there` lays the value out as there."""
        if tap in self._given:
            tensor[...] = as_there(self._given[tap])
            self.replaced.add(tap)

    def joined(self) -> dict[str, Any]:
        """Every tap over all of its calls; over several calls without attention probabilities, whose S grows."""
        graph = text_graph()
        return {
            tap: pieces[0] if len(pieces) == 1 else self._concatenate(pieces, graph.length_axis(tap))
            for tap, pieces in self.pieces.items()
            if graph.is_asked(tap, plain=len(pieces) == 1)
        }


def reads(config: Sizes, want: Collection[str] | None, prefix: str) -> Iterator[Read]:
    """Where the tree shows the wanted taps (all if None); its names have `prefix` instead of `model.`."""
    for layer in (None, *range(config.num_hidden_layers)):
        for read in reads_of(text_graph(), layer):
            if want is None or read.tap in want:
                yield replace(read, module=read.module.replace("model.", prefix, 1))


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument of a call, however it was passed."""
    return args[0] if args else next(iter(kwargs.values()))
