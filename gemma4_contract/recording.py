"""A recorder of taps that can also say what a forward pass goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recording(Generic[T]):
    """Keeps every tap that it is called with; returns the tap's `given` value where it has one, else the value itself.

    T is a tensor of any framework.
    """

    given: Mapping[str, T] = field(default_factory=dict)
    taps: dict[str, T] = field(default_factory=dict)

    def __call__(self, name: str, value: T) -> T:
        """Keep `value` as the tap `name`; what the pass is to go on with."""
        self.taps[name] = value
        return self.given.get(name, value)
