"""The catalogue of known mistakes, each as a small change of the oracle: it grades the suite and diagnoses ports.

A mutant is one entry in the file of its area: a subclass of `Ops`, `Decoder`, `TextConfig` or `Loader` with a function
wrong, under a decorator that says what it does, how it shows, how it is cured, where it is first seen, and which cases
catch it. After that, three commands write what is made from it: `gemma4-conformance export --mistakes` its document in
`fixtures/mistakes`, `gemma4-conformance bugs --markdown docs/mistakes` its page, and
`gemma4-conformance self-test --only <id> --save docs/results/kill_matrix.json` judges it and adds its results.

A new area is a new file here with an `AREA`; its `place` decides where the tables list it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from reference.mutants.mutant import Mutant
from reference.mutants.registry import Area

_MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]

AREAS: tuple[Area, ...] = tuple(
    sorted((module.AREA for module in _MODULES if hasattr(module, "AREA")), key=lambda area: area.place)
)
"""The areas in the order of the tables."""

MUTANTS: Mapping[str, Mutant] = {mutant.id: mutant for area in AREAS for mutant in area.mutants}
"""Every mutant by its id, area by area."""
