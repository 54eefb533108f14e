"""Taps of any module tree that keeps Hugging Face's names, read where the graph says; no line of code a tap.

`module_tree_torch` and `module_tree_mlx` do so in PyTorch and in MLX. What a tree computes elsewhere, or under another
name, is not offered, or left out by `want` and read by hand.
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
    """A configuration, as far as a tree is read by it: transformers' and mlx-lm's have these fields."""

    @property
    def num_hidden_layers(self) -> int: ...

    @property
    def hidden_size_per_layer_input(self) -> int: ...


class TapRecords:
    """What was recorded: for each tap the tensors of the successive calls, joined along L at the end.

    The tensor of a tap that has a `given` value is overwritten with it; `replaced` names those that were.
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
        """Overwrite a tensor of the tree in place, where the tap is given, by what `as_there` makes of the value."""
        if tap in self._given:
            tensor[...] = as_there(self._given[tap])
            self.replaced.add(tap)

    def joined(self) -> dict[str, Any]:
        """Every tap over all its calls; over several there are no attention probabilities, whose S grows."""
        graph = text_graph()
        return {
            tap: pieces[0] if len(pieces) == 1 else self._concatenate(pieces, graph.length_axis(tap))
            for tap, pieces in self.pieces.items()
            if graph.is_asked(tap, plain=len(pieces) == 1)
        }


def reads(config: Sizes, want: Collection[str] | None, prefix: str) -> Iterator[Read]:
    """Where the wanted taps are shown, all of them where none are named; `prefix` stands instead of `model.`."""
    for layer in (None, *range(config.num_hidden_layers)):
        for read in reads_of(text_graph(), layer):
            if want is None or read.tap in want:
                yield replace(read, module=read.module.replace("model.", prefix, 1))


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument of a call, however it was passed."""
    return args[0] if args else next(iter(kwargs.values()))
