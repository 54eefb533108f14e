"""How a mutant is written down: a decorator on the class that has a function wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from reference.mutants.mutant import Mutant, Wrong

_Wrong = TypeVar("_Wrong", bound=Wrong)


class Area:
    """The mutants of one file; files are listed by their `place`, and two of the same name are one area."""

    def __init__(self, name: str, *, place: int) -> None:
        self.name = name
        self.place = place
        self.mutants: list[Mutant] = []

    def mutant(
        self,
        mutant_id: str,
        *,
        does: str,
        symptom: str,
        cure: str,
        first_tap: str,
        layers: str = "every layer",
        links: tuple[str, ...] = (),
        equivalent_in: Mapping[str, str] | None = None,
        survives_in: Mapping[str, str] | None = None,
        caught_by: tuple[str, ...] = (),
    ) -> Callable[[_Wrong], _Wrong]:
        """Register the decorated class as this mutant; its fields are those of `Mutant`."""

        def register(wrong: _Wrong) -> _Wrong:
            self.mutants.append(
                Mutant(
                    id=mutant_id,
                    area=self.name,
                    wrong=wrong,
                    does=does,
                    symptom=symptom,
                    cure=cure,
                    first_tap=first_tap,
                    layers=layers,
                    links=links,
                    equivalent_in=equivalent_in or {},
                    survives_in=survives_in or {},
                    caught_by=caught_by,
                )
            )
            return wrong

        return register
