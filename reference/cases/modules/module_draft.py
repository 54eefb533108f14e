"""The draft of a module case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gemma4_contract.tensors import Array
from reference.cases.draft import Draft, tap
from reference.taps import Tap

WIDTH, EPS = 96, 1e-6

_TOPIC = {
    "linear": "arithmetic",
    "long_sum": "arithmetic",
    "exp_tanh": "arithmetic",
    "rms_norm": "norm",
    "rope": "rope",
    "inv_freq": "rope",
    "embedding": "embedding",
    "ple": "ple",
    "ple_index": "ple",
    "attention_core": "attention",
    "shared_kv_donors": "kv-sharing",
    "mlp": "mlp",
    "gelu_tanh": "mlp",
    "router": "moe",
    "experts": "moe",
    "softcap": "logits",
}


def module_draft(
    name: str,
    purpose: str,
    inputs: Mapping[str, Array],
    *,
    params: Mapping[str, Any] | None = None,
    taps: list[Tap] | None = None,
    axes: str = "L D",
    profiles: tuple[str, ...] = (),
    exact_in: str | None = None,
    advice: str | None = None,
) -> Draft:
    """A case `module/<kind with dashes>/<name>`; a single tap `y` unless `taps` says otherwise."""
    kind = name.partition("/")[0].replace("-", "_")
    return Draft(
        id=f"module/{name}",
        kind=kind,
        level="L0" if _TOPIC[kind] == "arithmetic" else "L1",
        topic=_TOPIC[kind],
        purpose=purpose,
        profiles=(exact_in,) if exact_in else profiles,
        exact_in=exact_in,
        advice=advice,
        taps=taps or [tap("y", axes)],
        inputs={key: x.astype(np.float32) if x.dtype.kind == "f" else x for key, x in inputs.items()},
        params=params or {},
    )
