"""Module cases: RoPE, default and proportional, and its inverse frequencies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reference.cases.draft import Draft, tap
from reference.cases.modules.module_draft import module_draft
from reference.family import FAMILY, FULL, SLIDING
from reference.inputs import values

POSITIONS = (0, 1, 511, 4096, 131071)


def drafts(suffix: str) -> Iterator[Draft]:
    """The cases of RoPE and of its inverse frequencies."""
    default = {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 1.0}
    proportional = {"rope_theta": 1000000.0, "rope_type": "proportional", "partial_rotary_factor": 0.25}
    axes = "B H L E"
    for name, params, head_dim in (("default", default, 256), ("proportional", proportional, 512)):
        for position in POSITIONS:
            yield module_draft(
                f"rope/{name}-at-{position}",
                f"{name.capitalize()} RoPE of two heads of {head_dim} at position {position}.",
                {
                    "x": values(f"rope/{name}-at-{position}#x{suffix}", (1, 2, 1, head_dim)),
                    "positions": np.array([[position]], np.int32),
                },
                params=params,
                axes=axes,
            )
        yield module_draft(
            f"rope/{name}-run",
            f"{name.capitalize()} RoPE of a run of 24 tokens from position 0.",
            {
                "x": values(f"rope/{name}-run#x{suffix}", (1, 1, 24, head_dim // 8)),
                "positions": np.arange(24, dtype=np.int32)[None],
            },
            params=params,
            axes=axes,
        )
        yield module_draft(
            f"rope/{name}-rows",
            f"{name.capitalize()} RoPE of a batch whose rows stand at other positions.",
            {
                "x": values(f"rope/{name}-rows#x{suffix}", (3, 2, 1, head_dim // 8)),
                "positions": np.array([[18], [15], [6]], np.int32),
            },
            params=params,
            axes=axes,
        )
    e2b = dict(FAMILY["e2b"].text_config)
    uncut = {**e2b["rope_parameters"], FULL: {**e2b["rope_parameters"][FULL], "partial_rotary_factor": 1.0}}
    configs = {
        "e2b-sliding": ("Frequencies of E2B's sliding layers.", e2b, SLIDING),
        "e2b-full": ("Frequencies of E2B's full layers: 64 values and 192 zeros.", e2b, FULL),
        "e2b-full-uncut": (
            "Frequencies of full layers whose partial_rotary_factor is 1: all 256 pairs rotate.",
            {**e2b, "rope_parameters": uncut},
            FULL,
        ),
    }
    for name, (purpose, config, layer_type) in configs.items():
        yield module_draft(
            f"inv-freq/{name}",
            purpose,
            {},
            params={"config": config, "layer_type": layer_type},
            taps=[tap("inv_freq", "E/2")],
        )
