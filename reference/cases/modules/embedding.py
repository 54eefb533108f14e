"""Module cases: the scaled embedding, and per-layer embeddings (PLE)."""

from __future__ import annotations

from collections.abc import Iterator

from reference import weights
from reference.cases.draft import Draft, tap
from reference.cases.modules.module_draft import EPS, WIDTH, module_draft
from reference.inputs import token_ids, values
from reference.models import MODELS
from reference.taps import closed, model_taps


def drafts(suffix: str) -> Iterator[Draft]:
    """The cases of embeddings, PLE and offsets in the packed PLE table."""
    for width in (WIDTH, 1536):
        table = weights.matrix(f"embedding/width-{width}#table{suffix}", (4, width), width)
        yield module_draft(
            f"embedding/width-{width}",
            f"Rows of an embedding table times the root of {width}.",
            {"ids": token_ids(f"embedding/width-{width}#ids{suffix}", 4, 4), "table": table},
            axes="B L D",
            profiles=("f64", "f32"),
        )
    for profile in ("bf16", "f16"):
        name = f"rounded-scale-{profile}"
        table = weights.matrix(f"embedding/{name}#table{suffix}", (4, 1536), 1536)
        yield module_draft(
            f"embedding/{name}",
            f"The root of 1536 is rounded to {profile} before it multiplies: one right answer to the bit.",
            {"ids": token_ids(f"embedding/{name}#ids{suffix}", 4, 4), "table": table},
            axes="B L D",
            exact_in=profile,
        )
    layers, width, vocab = 3, 16, 32
    yield module_draft(
        "ple/three-layers",
        "Token rows, context projection and their scaled sum for three layers.",
        {
            "ids": token_ids(f"ple/three-layers#ids{suffix}", 7, vocab),
            "h": values(f"ple/three-layers#h{suffix}", (1, 7, WIDTH)),
            "table": weights.matrix(f"ple/three-layers#table{suffix}", (vocab, layers * width), width),
            "projection": weights.matrix(f"ple/three-layers#projection{suffix}", (layers * width, WIDTH), WIDTH),
            "norm": weights.norm(f"ple/three-layers#norm{suffix}", width, 1.0),
        },
        params={"eps": EPS, "num_layers": layers},
        taps=closed([tap for tap in model_taps(MODELS["e2b-mini"].config) if "N" in tap.axes]),
    )
    for name, (token, layer, channel) in {"first": (0, 0, 0), "past-int32": (262143, 34, 255)}.items():
        yield module_draft(
            f"ple-index/{name}",
            f"Where channel {channel} of layer {layer} of token {token} lies in E2B's packed table.",
            {},
            params={"num_layers": 35, "width": 256, "id": token, "layer": layer, "channel": channel},
            taps=[tap("offset", "L")],
        )
