"""Mistakes in the scale of the token embedding.

Shape letters: B batch, L query length, D hidden, V vocabulary.
"""

from __future__ import annotations

import copy
import math

from reference.mutants.registry import Area
from reference.oracle.arithmetic import BF16, Array
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops
from reference.taps import Recorder, silent

AREA = Area("embedding", place=130)

_FIRST = "model.embed_tokens"
_SAME_ROOT = "The root is taken in the storage dtype, and there is no narrower one to round it to."


@AREA.mutant(
    "embed-scale-missing",
    does="Feeds layer 0 the rows of the table as they are stored.",
    symptom="Branches outweigh the embedding from the first layer on; garbage.",
    cure="Multiply the rows by sqrt(D).",
    first_tap=_FIRST,
    links=("ml-explore/mlx-swift-lm#210",),
    caught_by=(
        "module/embedding/width-1536",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Missing(Ops):
    def embedding(self, ids: Array, table: Array) -> Array:
        return table[ids]


@AREA.mutant(
    "embed-scale-twice",
    does="Multiplies by sqrt(D) in the embedding and once more where the model takes embeddings in.",
    symptom="The embedding outweighs every branch.",
    cure="Scale in one place: where ids become vectors.",
    first_tap=_FIRST,
    links=("Blaizzy/mlx-vlm#906",),
    caught_by=(
        "module/embedding/width-1536",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Twice(Ops):
    def embedding(self, ids: Array, table: Array) -> Array:
        return super().embedding(ids, table) * self.ar.scalar(math.sqrt(table.shape[-1]), table)


@AREA.mutant(
    "embed-scale-not-rounded",
    does="Multiplies by a float32 root and rounds the product; the root itself is not rounded to the storage dtype.",
    symptom="All embeddings off by one factor within 0.25 percent, in a 16-bit dtype alone.",
    cure="Cast sqrt(D) to the dtype of the weights, then multiply.",
    first_tap=_FIRST,
    links=("tenstorrent/tt-metal#48291",),
    equivalent_in={"f64": _SAME_ROOT, "f32": _SAME_ROOT},
    caught_by=(
        "module/embedding/rounded-scale-bf16",
        "module/embedding/rounded-scale-f16",
    ),
)
class _NotRounded(Ops):
    def embedding(self, ids: Array, table: Array) -> Array:
        rows = table[ids].astype(self.ar.wide)
        return (rows * self.ar.scalar(math.sqrt(table.shape[-1]), rows)).astype(table.dtype)


@AREA.mutant(
    "embed-scale-folded-into-head",
    does="Bakes sqrt(D) into the table that head and embedding share.",
    symptom="Hidden states are right, raw logits sqrt(D) times too large and the capped ones saturated.",
    cure="The head reads the table unscaled.",
    first_tap="logits.raw",
    caught_by=("forward/e2b-mini/uniform-l1/no-cache",),
)
class _FoldedIntoHead(Decoder):
    def unembed(self, h: Array, record: Recorder = silent) -> Array:
        table = self.weights["model.embed_tokens.weight"]  # [V, D]
        scaled = table * self.ar.scalar(math.sqrt(table.shape[-1]), table)
        head = copy.copy(self)
        head.weights = {**self.weights, "model.embed_tokens.weight": scaled}
        return Decoder.unembed(head, h, record)


@AREA.mutant(
    "embed-scale-in-bfloat16",
    does="Rounds sqrt(D) to bfloat16 whatever the dtype of the weights, as Gemma 1 to 3 were first published.",
    symptom="All hidden states are off by up to 0.4 percent in float32; in bfloat16 nothing is wrong.",
    cure="Round sqrt(D) to the dtype of the weights: in float32 it stays as it is.",
    first_tap=_FIRST,
    equivalent_in={"bf16": "The root is rounded to bfloat16 there by right."},
    caught_by=(
        "module/embedding/width-1536",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _InBfloat16(Ops):
    def embedding(self, ids: Array, table: Array) -> Array:
        root = BF16.dtype.type(math.sqrt(table.shape[-1]))
        return table[ids] * self.ar.scalar(float(root), table)
