"""The catalogue of known mistakes, each as a small change of the oracle: it grades the suite and diagnoses ports."""

from __future__ import annotations

from collections.abc import Mapping

from reference.mutants import (
    attention,
    cache,
    configuration,
    donors,
    embedding,
    keys_values,
    kv_sharing,
    layer_scalar,
    loading,
    logits,
    masks,
    mlp,
    moe,
    norms,
    ple,
    ple_gate,
    ple_rows,
    rope,
    router,
)
from reference.mutants.mutant import Mutant

_AREAS = (
    rope,
    masks,
    attention,
    keys_values,
    kv_sharing,
    donors,
    cache,
    ple_rows,
    ple,
    ple_gate,
    norms,
    layer_scalar,
    embedding,
    mlp,
    router,
    moe,
    logits,
    configuration,
    loading,
)

MUTANTS: Mapping[str, Mutant] = {mutant.id: mutant for module in _AREAS for mutant in module.AREA.mutants}
"""Every mutant by its id, area by area."""
