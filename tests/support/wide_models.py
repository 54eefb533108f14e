"""Small models whose matrices MLX can quantise: whole groups of 64."""

from __future__ import annotations

from reference.family import FAMILY
from reference.models import MODELS, Model

_WIDTHS = {
    "hidden_size": 128,
    "hidden_size_per_layer_input": 64,
    "head_dim": 64,
    "global_head_dim": 128,
    "intermediate_size": 64,
    "moe_intermediate_size": 64,
}
WIDE = {
    name: Model(
        id=f"wide-{name}",
        member=FAMILY[name],
        purpose="Matrices that can be quantised.",
        overrides={
            **MODELS[f"{name}-mini"].overrides,
            **{key: width for key, width in _WIDTHS.items() if FAMILY[name].text_config.get(key)},
        },
        nested=True,
    )
    for name in ("e2b", "26b-a4b")
}
