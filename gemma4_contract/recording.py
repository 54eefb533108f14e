"""Recorders of taps: of one call, which can say what the pass goes on with, and of several calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class _Shaped(Protocol):
    """A tensor of any framework."""

    @property
    def shape(self) -> tuple[int, ...]: ...


T = TypeVar("T", bound=_Shaped)


@dataclass(frozen=True, slots=True)
class Recording(Generic[T]):
    """Keeps every tap that it is called with; returns the tap's `given` value where it has one, else the value itself.

    A value of another shape than the given one is wrong, and the pass goes on with it: the rest of it may not take the
    right shape.
    """

    given: Mapping[str, T] = field(default_factory=dict)
    taps: dict[str, T] = field(default_factory=dict)

    def __call__(self, name: str, value: T) -> T:
        """Keep `value` as the tap `name`; what the pass is to go on with."""
        self.taps[name] = value
        given = self.given.get(name, value)
        return given if given.shape == value.shape else value


@dataclass(frozen=True, slots=True)
class Pieces(Generic[T]):
    """Keeps the tensors of successive calls by tap, of the wanted taps alone where some are named."""

    want: Collection[str] | None = None
    taps: dict[str, list[T]] = field(default_factory=dict)

    def __call__(self, name: str, value: T) -> T:
        """Append `value` to the tap `name`; the pass goes on with it."""
        if self.want is None or name in self.want:
            self.taps.setdefault(name, []).append(value)
        return value
