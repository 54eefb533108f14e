"""Mistakes in RoPE.

Shape letters: B batch, L query length, H heads, E head dim.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from reference.config import Rope, TextConfig
from reference.mutants.mutant import WITHOUT_16_BITS, with_ops
from reference.mutants.registry import Area
from reference.oracle.arithmetic import BF16, Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.oracle.ops import Ops
from reference.taps import Recorder

AREA = Area("RoPE", place=10)

_FULL = "full layers"


@AREA.mutant(
    "prop-rope-contiguous-prefix",
    does="Takes partial_rotary_factor for ordinary partial RoPE: rotates the first quarter of the head as one block, "
    "pairing channel j with j + E/8 instead of j + E/2.",
    symptom="Fluent but degraded text; the frequencies agree to the bit.",
    cure="Pair j with j + E/2 over the whole head; the pairs after the first quarter have frequency zero.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    links=("ml-explore/mlx-lm@fa74caa8", "ml-explore/mlx-swift-lm#210", "NVIDIA-NeMo/Megatron-Bridge#4195"),
    caught_by=(
        "module/rope/proportional-at-1",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _ContiguousPrefix(Ops):
    def rope(self, x: Array, positions: Array, frequencies: Array) -> Array:
        turning = int((frequencies > 0).sum())
        block = super().rope(x[..., : 2 * turning], positions, frequencies[:turning])
        return np.concatenate([block, x[..., 2 * turning :]], axis=-1)


@AREA.mutant(
    "prop-rope-denominator",
    does="Divides the exponent by the rotated width instead of the head dim.",
    symptom="Exact at position 0, worse with distance.",
    cure="theta^(-2j/E) with E the whole head dim, then zeros.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    links=("ml-explore/mlx-lm@fa74caa8", "kekzl/imp#9", "pie-project/pie#603"),
    caught_by=(
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _Denominator(Ops):
    def inverse_frequencies(self, head_dim: int, rope: Rope) -> Array:
        if rope.rope_type != "proportional":
            return super().inverse_frequencies(head_dim, rope)
        whole = dataclasses.replace(rope, rope_type="default", partial_rotary_factor=1.0)
        turning = super().inverse_frequencies(2 * int(rope.partial_rotary_factor * head_dim // 2), whole)
        return np.concatenate([turning, np.zeros(head_dim // 2 - len(turning), turning.dtype)])


@AREA.mutant(
    "rope-before-norm",
    does="Rotates the queries first and normalises them after.",
    symptom="Positions are felt through the wrong channels' weights.",
    cure="q = rope(rms_norm(q_proj x)): the norm first.",
    first_tap="self_attn.q_norm",
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _BeforeNorm(Decoder):
    def queries(self, index: int, x: Array, positions: Array, tap: Recorder) -> Array:
        q = self.heads(index, "self_attn.q_proj.weight", x)
        q = self.ops.rope(q, positions, self.frequencies[self.config.layer_types[index]])
        return tap("self_attn.q_rope", self.norm(index, "self_attn.q_norm", q, tap))


@AREA.mutant(
    "rope-single-theta",
    does="Uses the sliding layers' theta on full layers as well.",
    symptom="Long-range attention of full layers blurs.",
    cure="Read rope_parameters of the layer's own type: 1e4 sliding, 1e6 full.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    links=("ggml-org/llama.cpp#14367", "antonellof/ferrox#39"),
    caught_by=(
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _SingleTheta(TextConfig):
    def rope_of(self, layer: int) -> Rope:
        theta = self.rope_parameters["sliding_attention"].rope_theta
        return dataclasses.replace(super().rope_of(layer), rope_theta=theta)


class _OtherFactor(Ops):
    factor: ClassVar[float]

    def inverse_frequencies(self, head_dim: int, rope: Rope) -> Array:
        return super().inverse_frequencies(head_dim, dataclasses.replace(rope, partial_rotary_factor=self.factor))


@AREA.mutant(
    "rope-half-rotation",
    does="Rotates half of the pairs of full layers, whatever partial_rotary_factor says.",
    symptom="Full layers are off by some percent; code and numbers suffer first.",
    cure="Rotate the first partial_rotary_factor * E/2 pairs: 64 of 256.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    links=("kekzl/imp#9", "kekzl/imp#20"),
    caught_by=(
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _HalfRotation(_OtherFactor):
    factor = 0.5


@AREA.mutant(
    "rope-full-rotation",
    does="Rotates all pairs of full layers: partial_rotary_factor is ignored, or taken for 1 where it is absent.",
    symptom="Exact at position 0; full layers drift with distance.",
    cure="partial_rotary_factor is 0.25 on full layers, by default too.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    links=("ml-explore/mlx-lm@8223f6d8", "ml-explore/mlx-lm#1114"),
    caught_by=(
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _FullRotation(_OtherFactor):
    factor = 1.0


@AREA.mutant(
    "rope-full-theta-everywhere",
    does="Uses the full layers' theta on sliding layers as well.",
    symptom="Neighbours in the window are told apart poorly.",
    cure="Read rope_parameters of the layer's own type: 1e4 sliding, 1e6 full.",
    first_tap="self_attn.q_rope",
    layers="sliding layers",
    links=("ggml-org/llama.cpp#14367",),
    caught_by=(
        "module/inv-freq/e2b-sliding",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _FullTheta(TextConfig):
    def rope_of(self, layer: int) -> Rope:
        theta = self.rope_parameters["full_attention"].rope_theta
        return dataclasses.replace(super().rope_of(layer), rope_theta=theta)


@AREA.mutant(
    "rope-interleaved-pairs",
    does="Pairs neighbouring channels, 2j with 2j + 1.",
    symptom="Garbage beyond the first token; the frequencies agree to the bit.",
    cure="Pair j with j + E/2 (rotate_half), or permute the rows of q_proj and k_proj and the norms' weights.",
    first_tap="self_attn.q_rope",
    caught_by=(
        "module/rope/default-at-1",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _Interleaved(Ops):
    def rope(self, x: Array, positions: Array, frequencies: Array) -> Array:
        halves = np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)  # [B, H, L, E]: the pairs as right wants them
        first, second = np.split(super().rope(halves, positions, frequencies), 2, axis=-1)
        return np.stack([first, second], axis=-1).reshape(x.shape)


@AREA.mutant(
    "rope-sign-flipped",
    does="Rotates by minus the angle.",
    symptom="Exact at position 0; elsewhere keys seem to lie on the wrong side of the query.",
    cure="(a cos - b sin, b cos + a sin): rotate_half is (-second, first).",
    first_tap="self_attn.q_rope",
    caught_by=(
        "module/rope/default-at-1",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _SignFlipped(Ops):
    def rope(self, x: Array, positions: Array, frequencies: Array) -> Array:
        return super().rope(x, positions, -frequencies)


class _NoRope(Ops):
    def rope(self, x: Array, positions: Array, frequencies: Array) -> Array:
        return x


@AREA.mutant(
    "rope-missing-on-keys",
    does="Rotates the queries and leaves the keys as they are.",
    symptom="Attention depends on absolute positions; text decays after some tokens.",
    cure="Rotate the keys too, before they enter the cache.",
    first_tap="self_attn.k_rope",
    layers="own-KV layers",
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _MissingOnKeys(Decoder):
    def keys_and_values(self, *args: Any, **named: Any) -> KeyValues:
        return Decoder.keys_and_values(with_ops(self, _NoRope), *args, **named)


@AREA.mutant(
    "rope-angles-low-precision",
    does="Computes the angles in the dtype of the activations.",
    symptom="Worse with distance: from position 256 on bfloat16 cannot hold every position, float16 none past 65504.",
    cure="Positions, frequencies and angles in float32; cast cos and sin.",
    first_tap="self_attn.q_rope",
    links=("kekzl/imp#20",),
    equivalent_in=dict.fromkeys(WITHOUT_16_BITS, "The angles are in that dtype already."),
    caught_by=("module/rope/default-at-131071",),
)
class _LowPrecision(Ops):
    def rope(self, x: Array, positions: Array, frequencies: Array) -> Array:
        return super().rope(x, positions, frequencies.astype(x.dtype))


@AREA.mutant(
    "rope-table-clamped",
    does="Reads cos and sin from a table of 4096 rows, its last one for every position past the end.",
    symptom="Right up to position 4095; all later tokens seem to stand at one place.",
    cure="Size the table by max_position_embeddings, or compute the angles from the positions.",
    first_tap="y",
    layers="module cases",
    caught_by=("module/rope/default-at-131071",),
)
class _TableClamped(Ops):
    def rope(self, x: Array, positions: Array, frequencies: Array) -> Array:
        return super().rope(x, np.minimum(positions, 4095), frequencies)


@AREA.mutant(
    "rope-frequencies-in-bfloat16",
    does="Keeps the frequencies in bfloat16, as casting a whole module to bfloat16 and back does.",
    symptom="Exact at position 0; every other angle is off by up to 0.4 percent.",
    cure="Compute the frequencies in float32 and leave them out of casts of the module.",
    first_tap="self_attn.q_rope",
    caught_by=(
        "module/rope/default-run",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _FrequenciesInBfloat16(Ops):
    def inverse_frequencies(self, head_dim: int, rope: Rope) -> Array:
        frequencies = super().inverse_frequencies(head_dim, rope)
        return frequencies.astype(BF16.dtype).astype(frequencies.dtype)


@AREA.mutant(
    "prop-rope-last-pairs",
    does="Rotates the last quarter of the pairs of full layers instead of the first.",
    symptom="Exact at position 0; full layers drift with distance.",
    cure="The first partial_rotary_factor * E/2 pairs turn, the others stand still.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    caught_by=(
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _LastPairs(Ops):
    def inverse_frequencies(self, head_dim: int, rope: Rope) -> Array:
        frequencies = super().inverse_frequencies(head_dim, rope)
        return np.roll(frequencies, int((frequencies == 0).sum()))


@AREA.mutant(
    "rope-scaled-as-gemma-3",
    does="Divides the positions of full layers by 8, the linear rope_scaling of Gemma 3.",
    symptom="Full layers take tokens for eight times nearer than they are.",
    cure="Gemma 4 has no rope_scaling: positions are used as they are.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    caught_by=(
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _ScaledAsGemma3(Ops):
    def inverse_frequencies(self, head_dim: int, rope: Rope) -> Array:
        frequencies = super().inverse_frequencies(head_dim, rope)
        return frequencies / 8 if rope.rope_type == "proportional" else frequencies


@AREA.mutant(
    "positions-start-at-one",
    does="Counts positions from 1, as models do that keep position 0 for pads.",
    symptom="None in the text: attention depends on distances alone. A cache shared with another runtime breaks.",
    cure="The first token stands at position 0.",
    first_tap="self_attn.q_rope",
    caught_by=(
        "module/rope/default-at-0",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _StartAtOne(Ops):
    def rope(self, x: Array, positions: Array, frequencies: Array) -> Array:
        return super().rope(x, positions + 1, frequencies)
