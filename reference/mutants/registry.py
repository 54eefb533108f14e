"""How a mutant is written down: a decorator on the function that makes the right function wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reference.mutants.mutant import Mutant, Wrong

Register = Callable[[Wrong], Wrong]


class Area:
    """The mutants of one file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mutants: list[Mutant] = []

    def mutant(
        self,
        mutant_id: str,
        *,
        replaces: str,
        does: str,
        symptom: str,
        cure: str,
        first_tap: str,
        layers: str = "every layer",
        links: tuple[str, ...] = (),
        equivalent_in: Mapping[str, str] | None = None,
        survives_in: Mapping[str, str] | None = None,
    ) -> Register:
        """Register the decorated function as this mutant; its fields are those of `Mutant`."""

        def register(wrong: Wrong) -> Wrong:
            self.mutants.append(
                Mutant(
                    id=mutant_id,
                    area=self.name,
                    replaces=replaces,
                    wrong=wrong,
                    does=does,
                    symptom=symptom,
                    cure=cure,
                    first_tap=first_tap,
                    layers=layers,
                    links=links,
                    equivalent_in=equivalent_in or {},
                    survives_in=survives_in or {},
                )
            )
            return wrong

        return register
