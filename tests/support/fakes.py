"""Ports that are right, or wrong in one chosen way, for testing the judge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conformance.adapters.base import Hello, Request, Skip
from gemma4_contract import Fixtures
from gemma4_contract.tensors import Array

Taps = dict[str, Array]
Change = Callable[[Taps], Taps]


class Port:
    """A port that answers by calling a function."""

    def __init__(
        self,
        answer: Callable[[Request], Taps],
        *,
        family: str = "fake",
        profiles: tuple[str, ...] = ("f64", "f32", "bf16", "f16"),
    ) -> None:
        self.answer = answer
        self.family = family
        self.profiles = profiles
        self.asked: list[Request] = []

    def hello(self) -> Hello:
        """A port on no device."""
        return Hello(
            name="fake",
            version="1",
            language="Python",
            family=self.family,
            profiles=self.profiles,
            kinds=None,
            device="none",
        )

    def run(self, request: Request) -> Taps:
        """The function's answer."""
        self.asked.append(request)
        return self.answer(request)


def parrot(fixtures: Fixtures, change: Change | None = None) -> Port:
    """A cheat that repeats the golden, changed as told."""

    def answer(request: Request) -> Taps:
        taps = {name: np.array(value) for name, value in fixtures.golden(fixtures.case(request.case)).items()}
        return change(taps) if change else taps

    return Port(answer)


def skipper() -> Port:
    """A port that offers nothing."""

    def answer(request: Request) -> Taps:
        raise Skip(f"no {request.kind} here")

    return Port(answer)


def raiser(error: Exception) -> Port:
    """A port that breaks down at every question."""

    def answer(_: Request) -> Taps:
        raise error

    return Port(answer)
