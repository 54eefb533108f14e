"""Mistakes in the per-layer embeddings (PLE): context projection and sum. Lookup: `ple_rows`, the branch: `ple_gate`.

Shape letters: B batch, L query length, D hidden, N layers, P per-layer width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from reference.config import TextConfig
from reference.mutants.mutant import Function, replaced
from reference.mutants.registry import Area
from reference.oracle import norm
from reference.oracle.arithmetic import F64, Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.taps import Recorder

AREA = Area("PLE")

_CONTEXT = "model.per_layer_projection_norm"


@AREA.mutant(
    "ple-not-implemented",
    replaces="oracle.decoder.Decoder.__init__",
    does="Runs every layer without its PLE branch; the PLE tensors of the checkpoint are never read.",
    symptom="E2B and E4B write word salad, the models without PLE are right.",
    cure="Where hidden_size_per_layer_input is set, add the layer's gated PLE slice behind its feed-forward.",
    first_tap="output",
    links=("huggingface/candle@f96de9601", "EricLBuehler/mistral.rs#2172", "ggml-org/llama.cpp#22243"),
)
def _not_implemented(right: Function) -> Function:
    def init(self: Decoder, config: TextConfig, weights: Mapping[str, Array], ar: Arithmetic = F64) -> None:
        right(self, dataclasses.replace(config, hidden_size_per_layer_input=0), weights, ar)
        layer = self.layer
        vars(self)["layer"] = lambda *args, **named: layer(*args, **{**named, "layer_input": None})

    return init


@AREA.mutant(
    "ple-wrong-layer",
    replaces="oracle.ple.per_layer_inputs",
    does="Hands layer i the PLE slice of layer i + 1, the last layer that of the first.",
    symptom="The PLE tensor is right, and every gate reads another layer's slice of it.",
    cure="Layer i takes [:, :, i], counted from zero over all layers.",
    first_tap="ple_gated",
)
def _wrong_layer(right: Function) -> Function:
    def per_layer_inputs(*args: Array, **named: Any) -> Array:
        return np.roll(right(*args, **named), -1, axis=2)  # [B, L, N, P]

    return per_layer_inputs


@AREA.mutant(
    "ple-projection-scale-missing",
    replaces="oracle.ple.context_projection",
    does="Leaves D^-0.5 out between the context projection and its RMSNorm.",
    symptom="A relative shift of some 1e-5, seen in float32 alone: the norm takes any factor out again, up to its eps.",
    cure="Multiply the projection by D^-0.5 before the norm.",
    first_tap=_CONTEXT,
    equivalent_in={
        "bf16": "RMSNorm divides the factor out; what eps leaves of it, 3e-4 at most here, is under half a step, 2^-9.",
        "f16": "RMSNorm divides the factor out; what eps leaves of it, 3e-4 at most here, is under one step, 2^-11.",
    },
)
def _projection_scale_missing(_: Function) -> Function:
    def context_projection(
        h: Array, projection: Array, weight: Array, eps: float, num_layers: int, ar: Arithmetic
    ) -> Array:
        projected = ar.linear(h, projection).reshape(*h.shape[:2], num_layers, -1)  # [B, L, N, P]
        return norm.rms_norm(projected, weight, eps, ar)

    return context_projection


@AREA.mutant(
    "ple-projection-norm-missing",
    replaces="oracle.ple.context_projection",
    does="Adds the scaled context projection to the token rows without normalising it.",
    symptom="The context half of the PLE is too weak, by another factor at every token.",
    cure="Put per_layer_projection_norm, over each layer's P channels, behind the scaled projection.",
    first_tap=_CONTEXT,
)
def _projection_norm_missing(right: Function) -> Function:
    def context_projection(*args: Any) -> Array:
        with replaced("oracle.norm.rms_norm", lambda _: lambda x, *rest: x):
            return right(*args)

    return context_projection


@AREA.mutant(
    "ple-from-unscaled-embedding",
    replaces="oracle.decoder.Decoder._per_layer_inputs",
    does="Projects the token embedding as it was before sqrt(D).",
    symptom="A relative shift of some 1e-3 in the context half: the norm takes the factor out again, up to its eps.",
    cure="Project the scaled embedding, the same tensor that enters layer 0.",
    first_tap=_CONTEXT,
    survives_in={"bf16": "The shift of 1.4e-3 in the mean lies under half a step of bfloat16, 2e-3."},
)
def _from_unscaled_embedding(right: Function) -> Function:
    def per_layer_inputs(self: Decoder, ids: Array, _: Array, record: Recorder) -> Array:
        return right(self, ids, self.weights["model.embed_tokens.weight"][ids], record)

    return per_layer_inputs


@AREA.mutant(
    "ple-combine-scale-missing",
    replaces="oracle.ple.combine",
    does="Adds context projection and token rows without 2^-0.5.",
    symptom="The PLE is sqrt(2) times too strong; both halves are right.",
    cure="Multiply the sum by 2^-0.5.",
    first_tap="model.ple",
)
def _combine_scale_missing(_: Function) -> Function:
    return lambda context, rows, ar: context + rows


@AREA.mutant(
    "ple-context-only",
    replaces="oracle.ple.combine",
    does="Takes the context projection for the whole PLE: the layers got embeddings and no ids to look up.",
    symptom="Prompts fed as embeddings degrade on E2B and E4B; the same prompts fed as ids are right.",
    cure="Hand the ids, or the looked-up rows, down next to the embeddings.",
    first_tap="model.ple",
)
def _context_only(_: Function) -> Function:
    return lambda context, rows, ar: context


@AREA.mutant(
    "ple-tokens-only",
    replaces="oracle.ple.combine",
    does="Takes the token rows for the whole PLE; there is no context projection.",
    symptom="Layers know the token and not its embedding's projection: fluent but degraded text.",
    cure="PLE is (normalised context projection + token rows) / sqrt(2).",
    first_tap="model.ple",
)
def _tokens_only(_: Function) -> Function:
    return lambda context, rows, ar: rows
