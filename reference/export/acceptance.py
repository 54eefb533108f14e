"""Checks that a model is fit to judge with: errors do not explode with depth, and the arg-max is not the input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gemma4_contract import Policy
from reference.cases.forward import golden_ids
from reference.export.agreement import relative_rms
from reference.export.errors import ExportError
from reference.models import Model
from reference.oracle import plans
from reference.oracle.arithmetic import BF16_EVERY_OP, F32, F64, Arithmetic
from reference.oracle.decoder import Decoder
from reference.taps import output_of
from reference.weights import Float64


def acceptance(model: Model, built: Mapping[str, Float64]) -> dict[str, float]:
    """Relative RMS error at the last layer in f32 and in round-every-op bf16, and the share of echoed arg-maxes."""
    config = model.config
    ids = golden_ids(model, 0)
    last = output_of(config.num_hidden_layers)

    def run(ar: Arithmetic) -> dict[str, Float64]:
        positions = np.arange(ids.shape[1], dtype=np.int32)[None]
        return plans.run(Decoder(config, built, ar), ids, positions, want={last, "logits"})

    golden = run(F64)
    return {
        "f32": relative_rms(run(F32)[last], golden[last]),
        "bf16": relative_rms(run(BF16_EVERY_OP)[last], golden[last]),
        "echo": float((golden["logits"].argmax(-1) == ids).mean()),
    }


def check_acceptance(model: Model, figures: Mapping[str, float], policy: Policy) -> None:
    """ExportError if a figure is over its limit in `floors/policy.json`."""
    limits = {"f32": policy.acceptance_f32, "bf16": policy.acceptance_bf16, "echo": policy.acceptance_echo}
    for name, limit in limits.items():
        if not figures[name] <= limit:
            raise ExportError(f"{model.id}: got {name} {figures[name]:.2e}, expected at most {limit:.2e}")
