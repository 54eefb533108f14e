"""Mistakes in the scale of the token embedding.

Shape letters: B batch, L query length, D hidden, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

from reference.mutants.mutant import Function, replaced
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder

AREA = Area("embedding")

_EMBED = "oracle.embedding.embed"
_FIRST = "model.embed_tokens"


@AREA.mutant(
    "embed-scale-missing",
    replaces=_EMBED,
    does="Feeds layer 0 the rows of the table as they are stored.",
    symptom="Branches outweigh the embedding from the first layer on; garbage.",
    cure="Multiply the rows by sqrt(D).",
    first_tap=_FIRST,
    links=("ml-explore/mlx-swift-lm#210",),
)
def _missing(_: Function) -> Function:
    def embed(ids: Array, table: Array, *_: Arithmetic) -> Array:
        return table[ids]

    return embed


@AREA.mutant(
    "embed-scale-twice",
    replaces=_EMBED,
    does="Multiplies by sqrt(D) in the embedding and once more where the model takes embeddings in.",
    symptom="The embedding outweighs every branch.",
    cure="Scale in one place: where ids become vectors.",
    first_tap=_FIRST,
    links=("Blaizzy/mlx-vlm#906",),
)
def _twice(right: Function) -> Function:
    def embed(ids: Array, table: Array, ar: Arithmetic) -> Array:
        return right(ids, table, ar) * ar.scalar(math.sqrt(table.shape[-1]), table)

    return embed


_SAME_ROOT = "The root is taken in the storage dtype, and there is no narrower one to round it to."


@AREA.mutant(
    "embed-scale-not-rounded",
    replaces=_EMBED,
    does="Multiplies by a float32 root and rounds the product; the root itself is not rounded to the storage dtype.",
    symptom="All embeddings off by one factor within 0.25 percent, in a 16-bit dtype alone.",
    cure="Cast sqrt(D) to the dtype of the weights, then multiply.",
    first_tap=_FIRST,
    links=("tenstorrent/tt-metal#48291",),
    equivalent_in={"f64": _SAME_ROOT, "f32": _SAME_ROOT},
)
def _not_rounded(_: Function) -> Function:
    def embed(ids: Array, table: Array, ar: Arithmetic) -> Array:
        rows = table[ids].astype(ar.wide)
        return (rows * ar.scalar(math.sqrt(table.shape[-1]), rows)).astype(table.dtype)

    return embed


@AREA.mutant(
    "embed-scale-folded-into-head",
    replaces="oracle.decoder.Decoder.forward",
    does="Bakes sqrt(D) into the table that head and embedding share.",
    symptom="Hidden states are right, raw logits sqrt(D) times too large and the capped ones saturated.",
    cure="The head reads the table unscaled.",
    first_tap="logits.raw",
)
def _folded_into_head(right: Function) -> Function:
    def forward(self: Decoder, *args: Any) -> Array:
        table = self.weights["model.embed_tokens.weight"]  # [V, D]
        scaled = table * self.ar.scalar(math.sqrt(table.shape[-1]), table)

        def linear(linear: Function) -> Function:
            return lambda ar, x, weight: linear(ar, x, scaled if weight is table else weight)

        with replaced("oracle.arithmetic.Arithmetic.linear", linear):
            return right(self, *args)

    return forward
