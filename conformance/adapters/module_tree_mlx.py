"""Taps of an MLX module tree that keeps Hugging Face's names.

MLX has no hooks: during a run, `CallProxy` objects replace entries of a module's dict or of its list of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import mlx.core as mx

from conformance.adapters.module_tree import Sizes, TapRecords, first_argument, reads
from gemma4_contract.module_reads import Read, laid_back, laid_out, shown

Notes = Callable[[tuple[Any, ...], Any], None]
"""Called with the arguments and the result of a call."""
Before = Callable[[mx.array], None]


class MlxTapRecords(TapRecords):
    """Records of MLX arrays, which are lazy."""

    def __init__(self, given: Mapping[str, mx.array] | None = None) -> None:
        """Start empty."""
        super().__init__(lambda pieces, axis: mx.concatenate(list(pieces), axis=axis), given)

    def evaluate(self) -> None:
        """Evaluate all recorded arrays, so that no graph of operations grows over the calls."""
        mx.eval([piece for pieces in self.pieces.values() for piece in pieces[-1:]])


class CallProxy:
    """Replaces a callable: calls it, passes arguments and result to `notes`, and forwards all other attributes."""

    def __init__(self, inner: Any, notes: Notes, method: str = "", before: Before | None = None) -> None:
        """Observe calls of `inner`, or only of its method `method`; `before` gets its first argument before it."""
        self._inner = inner
        self._notes = notes
        self._method = method
        self._before = before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the inner callable."""
        if self._before is not None:
            self._before(first_argument(args, kwargs))
        result = self._inner(*args, **kwargs)
        if not self._method:
            self._notes(args or (first_argument(args, kwargs),), result)
        return result

    def __getattr__(self, name: str) -> Any:
        """The inner callable's attribute; the chosen method is observed as well."""
        value = getattr(self._inner, name)
        return CallProxy(value, self._notes) if name == self._method else value


@contextmanager
def mlx_taps(
    root: Any,
    config: Sizes,
    want: Collection[str] | None = None,
    prefix: str = "model.",
    given: Mapping[str, mx.array] | None = None,
) -> Iterator[MlxTapRecords]:
    """Record the wanted taps (all if None) that modules of `root` show while the context lasts.

    The tree's names have `prefix` instead of `model.`. The caller adds `logits`, which the root returns.
    After a tap is recorded, the tree continues with its `given` value if there is one.
    """
    records = MlxTapRecords(given)
    sizes = {"N": config.num_hidden_layers, "P": config.hidden_size_per_layer_input}
    layers = {f"{prefix}layers.{layer}" for layer in range(config.num_hidden_layers)}
    by_module: dict[str, list[Read]] = {path: [] for path in layers}
    for read in reads(config, want, prefix):
        if not read.needs_eager:  # attention in MLX is fused
            by_module.setdefault(read.module, []).append(read)
    with ExitStack() as stack:
        for path in sorted(by_module, key=lambda path: -path.count(".")):  # a module before the one that holds it
            if (found := find(root, path)) is not None:
                before = _noting_input(by_module[path], records, sizes, is_layer=path in layers)
                stack.enter_context(standing_in(*found, _noting_output(by_module[path], records, sizes), before=before))
        yield records


def find(root: Any, path: str) -> tuple[Any, str] | None:
    """The owner of the last part of a dotted path, and that part; None if the tree has no such module."""
    *parents, name = path.split(".")
    for parent in parents:
        root = _entry(root, parent)
    return (_inside(root), name) if name and _entry(root, name) is not None else None


def _entry(owner: Any, name: str) -> Any:
    owner = _inside(owner)
    if isinstance(owner, list):
        return owner[int(name)] if name.isdigit() and int(name) < len(owner) else None
    return getattr(owner, name, None)


def _inside(module: Any) -> Any:
    while isinstance(module, CallProxy):
        module = module._inner
    return module


@contextmanager
def standing_in(owner: Any, name: str, notes: Notes, method: str = "", before: Before | None = None) -> Iterator[None]:
    """Replace `owner.name` by a CallProxy while the context lasts.

    Sub-modules are entries of the MLX module's dict, layers of a list; a method is shadowed by an instance attribute.
    """
    owner, inner = _inside(owner), _entry(owner, name)
    proxy = CallProxy(inner, notes, method, before)
    key: Any = int(name) if isinstance(owner, list) else name
    if isinstance(owner, list) or name in owner:
        owner[key] = proxy
        try:
            yield
        finally:
            owner[key] = inner
    else:
        object.__setattr__(owner, name, proxy)
        try:
            yield
        finally:
            object.__delattr__(owner, name)


def reading(records: TapRecords, values: Mapping[str, Callable[[tuple[Any, ...], Any], mx.array]]) -> Notes:
    """Notes that record for each tap what its function reads from a call's arguments and result."""

    def notes(args: tuple[Any, ...], result: Any) -> None:
        for tap, read in values.items():
            records.add(tap, read(args, result))

    return notes


def _noting_input(reads: list[Read], records: TapRecords, sizes: dict[str, int], *, is_layer: bool) -> Before:
    """Notes the taps that are the first argument, and B and L of the hidden state [B, L, D] that enters a layer."""

    def note(argument: mx.array) -> None:
        if is_layer:
            sizes["B"], sizes["L"] = argument.shape[:2]
        for read in reads:
            if read.at == "input":
                _note(read, argument, records, sizes)

    return note


def _noting_output(reads: list[Read], records: TapRecords, sizes: Mapping[str, int]) -> Notes:
    def notes(_args: tuple[Any, ...], result: Any) -> None:
        for read in reads:
            if read.at == "output":
                _note(read, shown(read, result), records, sizes)

    return notes


def _note(read: Read, value: mx.array, records: TapRecords, sizes: Mapping[str, int]) -> None:
    records.add(read.tap, mx.array(laid_out(value, read, sizes)))  # `h *= s` would change the array that was read
    records.replace(read.tap, value, partial(laid_back, read=read, shape=value.shape))
