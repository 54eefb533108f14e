"""Mistakes in the per-layer embeddings (PLE): context projection and sum. Lookup: `ple_rows`, the branch: `ple_gate`.

Shape letters: B batch, L query length, D hidden, N layers, P per-layer width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.mutants.norms import NoNorm
from reference.mutants.registry import Area
from reference.oracle.arithmetic import BF16, F64, Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.oracle.ops import Ops
from reference.taps import Recorder

AREA = Area("PLE", place=90)

_CONTEXT = "model.per_layer_projection_norm"


@AREA.mutant(
    "ple-not-implemented",
    does="Runs every layer without its PLE branch; the PLE tensors of the checkpoint are never read.",
    symptom="E2B and E4B write word salad, the models without PLE are right.",
    cure="Where hidden_size_per_layer_input is set, add the layer's gated PLE slice after its feed-forward.",
    first_tap="output",
    links=("huggingface/candle@f96de9601", "EricLBuehler/mistral.rs#2172", "ggml-org/llama.cpp#22243"),
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _NotImplemented(Decoder):
    def per_layer_inputs(self, ids: Array, h: Array, record: Recorder) -> Array:
        return np.zeros((*ids.shape, self.config.num_hidden_layers, self.config.hidden_size_per_layer_input))

    def layer(self, *args: Any, layer_input: Array | None, **named: Any) -> tuple[Array, KeyValues]:
        return super().layer(*args, layer_input=None, **named)


@AREA.mutant(
    "ple-wrong-layer",
    does="Hands layer i the PLE slice of layer i + 1, the last layer that of the first.",
    symptom="The PLE tensor is right, and every gate reads another layer's slice of it.",
    cure="Layer i takes [:, :, i], counted from zero over all layers.",
    first_tap="ple_gated",
    caught_by=("forward/e2b-mini/uniform-l1/no-cache",),
)
class _WrongLayer(Ops):
    def per_layer_inputs(self, *args: Array, **named: Any) -> Array:
        return np.roll(super().per_layer_inputs(*args, **named), -1, axis=2)  # [B, L, N, P]


@AREA.mutant(
    "ple-projection-scale-missing",
    does="Leaves D^-0.5 out between the context projection and its RMSNorm.",
    symptom="A relative shift of some 1e-5, seen in float32 alone: the norm takes any factor out again, up to its eps.",
    cure="Multiply the projection by D^-0.5 before the norm.",
    first_tap=_CONTEXT,
    equivalent_in={
        "bf16": "RMSNorm divides the factor out; what eps leaves of it, 3e-4 at most here, is under half a step, 2^-9.",
        "f16": "RMSNorm divides the factor out; what eps leaves of it, 3e-4 at most here, is under one step, 2^-11.",
    },
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _ProjectionScaleMissing(Ops):
    def context_projection(self, h: Array, projection: Array, weight: Array, eps: float, num_layers: int) -> Array:
        projected = self.ar.linear(h, projection).reshape(*h.shape[:2], num_layers, -1)  # [B, L, N, P]
        return self.rms_norm(projected, weight, eps)


@AREA.mutant(
    "ple-projection-norm-missing",
    does="Adds the scaled context projection to the token rows without normalising it.",
    symptom="The context half of the PLE is too weak, by another factor at every token.",
    cure="Put per_layer_projection_norm, over each layer's P channels, after the scaled projection.",
    first_tap=_CONTEXT,
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _ProjectionNormMissing(Ops):
    def context_projection(self, h: Array, projection: Array, weight: Array, eps: float, num_layers: int) -> Array:
        return NoNorm(self.ar).context_projection(h, projection, weight, eps, num_layers)


@AREA.mutant(
    "ple-from-unscaled-embedding",
    does="Projects the token embedding as it was before sqrt(D).",
    symptom="A relative shift of some 1e-3 in the context half: the norm takes the factor out again, up to its eps.",
    cure="Project the scaled embedding, the same tensor that enters layer 0.",
    first_tap=_CONTEXT,
    survives_in={"bf16": "The shift of 1.4e-3 in the mean lies under half a step of bfloat16, 2e-3."},
    caught_by=("forward/e2b-mini/uniform-l1/no-cache",),
)
class _FromUnscaledEmbedding(Decoder):
    def per_layer_inputs(self, ids: Array, h: Array, record: Recorder) -> Array:
        return super().per_layer_inputs(ids, self.weights["model.embed_tokens.weight"][ids], record)


@AREA.mutant(
    "ple-combine-scale-missing",
    does="Adds context projection and token rows without 2^-0.5.",
    symptom="The PLE is sqrt(2) times too strong; both halves are right.",
    cure="Multiply the sum by 2^-0.5.",
    first_tap="model.ple",
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _CombineScaleMissing(Ops):
    def combine_rows(self, context: Array, rows: Array) -> Array:
        return context + rows


@AREA.mutant(
    "ple-context-only",
    does="Takes the context projection for the whole PLE: the layers got embeddings and no ids to look up.",
    symptom="Prompts fed as embeddings degrade on E2B and E4B; the same prompts fed as ids are right.",
    cure="Hand the ids, or the looked-up rows, down next to the embeddings.",
    first_tap="model.ple",
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _ContextOnly(Ops):
    def combine_rows(self, context: Array, rows: Array) -> Array:
        return context


@AREA.mutant(
    "ple-tokens-only",
    does="Takes the token rows for the whole PLE; there is no context projection.",
    symptom="Layers know the token and not its embedding's projection: fluent but degraded text.",
    cure="PLE is (normalised context projection + token rows) / sqrt(2).",
    first_tap="model.ple",
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _TokensOnly(Ops):
    def combine_rows(self, context: Array, rows: Array) -> Array:
        return rows


@AREA.mutant(
    "ple-projection-scale-folded-in-bfloat16",
    does="Folds D^-0.5 into per_layer_model_projection while its weights are bfloat16, which rounds all of them.",
    symptom="Models with PLE are off from layer 0 on by hundreds of float32 tolerances; other models are right.",
    cure="Scale the product, or fold the factor into float32 weights.",
    first_tap=_CONTEXT,
    survives_in={
        "bf16": "A rounding of the weights stays within what rounding the activations there does.",
    },
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _ScaleFoldedInBfloat16(Ops):
    def context_projection(self, h: Array, projection: Array, weight: Array, eps: float, num_layers: int) -> Array:
        root = h.shape[-1] ** -0.5
        folded = (projection.astype(F64.dtype) * root).astype(BF16.dtype).astype(F64.dtype)
        return super().context_projection(h, (folded / root).astype(projection.dtype), weight, eps, num_layers)
