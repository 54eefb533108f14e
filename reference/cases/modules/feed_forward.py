"""Module cases: GELU, the gated MLP, the router and the experts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gemma4_contract.routing import routing_margins
from gemma4_contract.tensors import Array
from reference import weights
from reference.cases.draft import Draft, tap
from reference.cases.modules.module_draft import EPS, WIDTH, module_draft
from reference.cases.routing import wide_rows
from reference.inputs import grid, values
from reference.oracle.arithmetic import F64
from reference.oracle.ops import Ops

_F, _X, _TOP_K = 64, 16, 8


def drafts(suffix: str) -> Iterator[Draft]:
    """The cases of GELU, MLP, router and experts."""
    yield module_draft(
        "gelu-tanh/grid",
        "The tanh form of GELU over [-4.5, 4.5]; the erf form differs by up to 5e-4.",
        {"x": grid(-4.5, 4.5, 400)},
        axes="L",
    )
    yield module_draft(
        "mlp/dense",
        "The gated MLP.",
        {
            "x": values(f"mlp/dense#x{suffix}", (1, 5, WIDTH)),
            "gate": weights.matrix(f"mlp/dense#gate{suffix}", (_F, WIDTH), WIDTH),
            "up": weights.matrix(f"mlp/dense#up{suffix}", (_F, WIDTH), WIDTH),
            "down": weights.matrix(f"mlp/dense#down{suffix}", (WIDTH, _F), _F),
        },
        taps=[tap("act", "B L F"), tap("y", "B L D", "act")],
    )
    yield module_draft(
        "mlp/overflow",
        "act * up reaches 7e4, which float16 cannot hold although every input and the golden's output can.",
        {
            "x": np.full((1, 1, 2), 256.0),
            "gate": np.array([[0.5, 0.5], [0.25, 0.0]]),
            "up": np.array([[0.5, 0.578125], [0.0, 0.5]]),
            "down": np.array([[2.0**-4, 1.0], [0.0, 2.0**-2]]),
        },
        taps=[tap("act", "B L F"), tap("y", "B L D", "act")],
        profiles=("f16",),
        advice="act * up overflows float16: multiply in float32 and scale, or run the MLP in float32 or bfloat16",
    )
    router = {
        "scale": weights.norm(f"router/top-8-of-16#scale{suffix}", WIDTH, 1.5 * math.sqrt(WIDTH)),
        "proj": weights.matrix(f"router/top-8-of-16#proj{suffix}", (_X, WIDTH), WIDTH),
        "per_expert_scale": weights.per_expert_scale(f"router/top-8-of-16#per_expert_scale{suffix}", _X),
    }
    ops = Ops(F64)

    def route(h: Array) -> tuple[Array, Array]:
        logits = ops.router_logits(h, router["scale"], router["proj"], EPS)
        return logits, ops.combine_weights(logits, router["per_expert_scale"], _TOP_K)

    pool = values(f"router/top-8-of-16#h{suffix}", (200, WIDTH), 2.0)
    router["h"] = wide_rows(pool, 6, lambda rows: float(routing_margins(*route(rows))[0, -1]))
    yield module_draft(
        "router/top-8-of-16",
        "Router logits, and the weights of the eight chosen experts.",
        router,
        params={"eps": EPS, "top_k": _TOP_K},
        taps=[tap("proj", "B L X"), tap("combine", "B L X", "proj", cls="routing")],
    )
    width = 16
    yield module_draft(
        "experts/fused",
        "The weighted sum over eight experts of sixteen; gate and up are the halves of one fused matrix.",
        {
            "x": values(f"experts/fused#x{suffix}", (1, 6, WIDTH)),
            "combine": weights.bf16(route(router["h"])[1]),
            "gate_up": weights.matrix(f"experts/fused#gate_up{suffix}", (_X, 2 * width, WIDTH), WIDTH),
            "down": weights.matrix(f"experts/fused#down{suffix}", (_X, WIDTH, width), width),
        },
        axes="B L D",
    )
