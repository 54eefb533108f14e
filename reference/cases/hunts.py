"""Which cases exist to catch which known mistakes; each of them does, alone (a test puts every pair)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reference.mutants import MUTANTS

CAUGHT_BY: Mapping[str, tuple[str, ...]] = {
    # RoPE
    "prop-rope-contiguous-prefix": (
        "module/rope/proportional-at-1",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "prop-rope-denominator": (
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "rope-before-norm": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l2/no-cache"),
    "rope-single-theta": (
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "rope-half-rotation": (
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "rope-full-rotation": (
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "rope-full-theta-everywhere": (
        "module/inv-freq/e2b-sliding",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "rope-interleaved-pairs": (
        "module/rope/default-at-1",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "rope-sign-flipped": (
        "module/rope/default-at-1",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "rope-missing-on-keys": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l2/no-cache"),
    "rope-angles-low-precision": ("module/rope/default-at-131071",),
    "rope-table-clamped": ("module/rope/default-at-131071",),
    # masks
    "sliding-mask-not-applied": (
        "module/attention-core/window",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l9/no-cache",
    ),
    "sliding-window-one-more": (
        "module/attention-core/window",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l9/no-cache",
    ),
    "sliding-window-one-less": (
        "module/attention-core/ring",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l8/no-cache",
    ),
    "sliding-window-ahead-by-one": (
        "module/attention-core/ring",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "sliding-mask-capped-keys-dropped": (
        "module/attention-core/window",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l9/no-cache",
    ),
    "mask-slice-wrong-end": ("forward/e2b-mini/uniform-l19/chunks-11",),
    "full-layer-dummy-mask": (
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "padding-mask-replaces-causal": ("forward/e2b-mini/uniform-l19/padded-no-cache",),
    "batch-left-padding-lost": ("forward/e2b-mini/uniform-l19/padded-no-cache",),
    "left-pad-rows-nan": ("forward/e2b-mini/uniform-l19/padded-no-cache",),
    "window-on-full-layers": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l9/no-cache"),
    "bidirectional-for-text": (
        "module/attention-core/window",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "causal-mask-top-left": ("module/attention-core/far-apart", "forward/e2b-mini/uniform-l2/tokens"),
    # attention
    "attn-scale-not-one": (
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "attn-scale-query-pre-attn-scalar": (
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "attn-softcap-added": (
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "attn-scores-in-bfloat16": (
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
    "gqa-heads-tiled": (
        "module/attention-core/causal",
        "attention/12b-mini/sliding-own",
        "forward/12b-mini/uniform-l1/no-cache",
    ),
    "context-heads-not-transposed": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l2/no-cache"),
    "q-norm-missing": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "k-norm-missing": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "qk-norm-over-all-heads": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    # keys and values
    "keqv-v-from-normed-roped-k": ("attention/12b-mini/full-own", "forward/12b-mini/uniform-l1/no-cache"),
    "keqv-v-from-normed-k": ("attention/12b-mini/full-own", "forward/12b-mini/uniform-l1/no-cache"),
    "keqv-v-not-normed": ("attention/12b-mini/full-own", "forward/12b-mini/uniform-l1/no-cache"),
    "v-norm-missing": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "v-norm-weighted": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "v-roped": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l2/no-cache"),
    "keqv-on-sliding-layers": ("attention/12b-mini/sliding-own", "forward/12b-mini/uniform-l1/no-cache"),
    "global-head-dim-ignored": (
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
    # KV sharing
    "kv-share-gated-on-cache": ("layer/e4b-mini/full-shared-hot", "forward/e4b-mini/uniform-l1/no-cache"),
    "kv-share-own-projections": ("layer/e4b-mini/full-shared-hot", "forward/e4b-mini/uniform-l1/no-cache"),
    "shared-layer-writes-cache": ("forward/e4b-mini/uniform-l2/tokens",),
    "shared-q-offset-after-update": ("forward/e2b-mini/uniform-l1/one-shot",),
    "shared-layer-current-step-kv-only": ("forward/e2b-mini/uniform-l2/tokens",),
    "rotating-donor-truncated-kv": ("forward/e2b-mini/uniform-l8/one-shot",),
    "shared-keys-rotated-again": ("attention/e2b-mini/full-shared-hot", "forward/e2b-mini/uniform-l2/no-cache"),
    "donor-first-of-type": ("module/shared-kv-donors/e2b", "forward/e2b-mini/uniform-l1/no-cache"),
    "donor-one-too-early": ("module/shared-kv-donors/e2b", "forward/e2b-mini/uniform-l1/no-cache"),
    "donor-last-of-any-type": ("module/shared-kv-donors/e2b", "forward/e2b-mini/uniform-l1/no-cache"),
    "kv-share-slice-minus-zero": ("module/shared-kv-donors/31b", "forward/12b-mini/uniform-l1/no-cache"),
    # cache and decoding
    "positions-restart-per-call": ("forward/e2b-mini/uniform-l2/tokens",),
    "offset-alias-mutation": ("forward/e2b-mini/uniform-l19/padded-mixed",),
    "physical-window-position": ("forward/e2b-mini/uniform-l9/one-shot",),
    "rotating-cache-evicts-early": ("forward/e2b-mini/uniform-l19/padded-mixed",),
    "rotating-chunk-truncated": ("forward/e2b-mini/uniform-l9/one-shot",),
    "full-cache-rotates": ("forward/e2b-mini/uniform-l19/chunks-11",),
    "cache-not-carried": ("forward/e2b-mini/uniform-l2/tokens",),
    "cache-first-token-lost": ("forward/e2b-mini/uniform-l2/tokens",),
    "pads-counted-as-positions": ("forward/e2b-mini/uniform-l19/padded-no-cache",),
    # PLE
    "ple-layout-transposed": ("module/ple/three-layers", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-token-scale-missing": ("module/ple/three-layers", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-token-scale-packed": ("module/ple/three-layers", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-chunk-not-sliced": ("forward/e2b-mini/uniform-l2/tokens",),
    "ple-previous-token": ("forward/e2b-mini/uniform-l2/tokens",),
    "ple-int32-overflow": ("module/ple-index/past-int32",),
    "ple-not-implemented": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-wrong-layer": ("forward/e2b-mini/uniform-l1/no-cache",),
    "ple-projection-scale-missing": ("module/ple/three-layers", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-projection-norm-missing": ("module/ple/three-layers", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-from-unscaled-embedding": ("forward/e2b-mini/uniform-l1/no-cache",),
    "ple-combine-scale-missing": ("module/ple/three-layers", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-context-only": ("module/ple/three-layers", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-tokens-only": ("module/ple/three-layers", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-gate-silu": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-gate-not-activated": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-gelu-after-product": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-post-norm-missing": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "ple-before-mlp": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    # norms
    "rmsnorm-plus-one": (
        "module/ple/three-layers",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
    "rmsnorm-eps-outside-root": (
        "module/ple/three-layers",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
    "rmsnorm-eps-missing": (
        "module/ple/three-layers",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
    "rmsnorm-eps-hardcoded": ("module/rms-norm/eps-1e-5", "forward/trap-eps/uniform-l19/no-cache"),
    "rmsnorm-in-low-precision": ("module/rms-norm/large",),
    "rmsnorm-as-layernorm": (
        "module/ple/three-layers",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
    "norms-swapped-around-attention": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "post-attention-norm-missing": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "pre-feedforward-norm-missing": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "post-feedforward-norm-missing": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "residual-from-normed": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "final-norm-missing": ("forward/e2b-mini/uniform-l1/no-cache",),
    "last-hidden-after-norm": ("forward/e2b-mini/uniform-l1/no-cache",),
    # layer scalar
    "layer-scalar-dropped": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "layer-scalar-full-only": ("layer/e2b-mini/sliding-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "layer-scalar-twice": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "layer-scalar-before-ple": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "layer-scalar-on-branch": ("layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    # embedding
    "embed-scale-missing": ("module/embedding/width-1536", "forward/e2b-mini/uniform-l1/no-cache"),
    "embed-scale-twice": ("module/embedding/width-1536", "forward/e2b-mini/uniform-l1/no-cache"),
    "embed-scale-not-rounded": ("module/embedding/rounded-scale-bf16", "module/embedding/rounded-scale-f16"),
    "embed-scale-folded-into-head": ("forward/e2b-mini/uniform-l1/no-cache",),
    # MLP
    "gelu-erf": ("module/experts/fused", "layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "gelu-silu": ("module/experts/fused", "layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "gelu-sigmoid": ("module/experts/fused", "layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "mlp-gate-up-swapped": ("module/experts/fused", "layer/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "mlp-activation-missing": (
        "module/experts/fused",
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
    "mlp-not-double-wide": ("layer/e2b-mini/full-shared-hot", "forward/e2b-mini/uniform-l1/no-cache"),
    # router
    "router-double-norm": ("layer/26b-a4b-mini/full-own-hot", "forward/26b-a4b-mini/uniform-l1/no-cache"),
    "router-fed-mlp-norm": ("layer/26b-a4b-mini/full-own-hot", "forward/26b-a4b-mini/uniform-l1/no-cache"),
    "router-scale-missing": (
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "router-root-missing": (
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "router-norm-missing": (
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "router-not-renormalised": (
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "router-sigmoid": (
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "router-top-k-hardcoded": ("forward/trap-moe/uniform-l19/no-cache",),
    "router-one-fewer": (
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "per-expert-scale-missing": (
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "per-expert-scale-in-logits": (
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "per-expert-scale-twice": (
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    # experts
    "gate-up-interleaved-split": (
        "module/experts/fused",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "gate-up-order-swapped": (
        "module/experts/fused",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "moe-expert-silu": (
        "module/experts/fused",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "moe-weights-on-input": (
        "module/experts/fused",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
    "moe-boundary-tile": ("forward/26b-a4b-mini/uniform-l9/no-cache",),
    "moe-experts-missing": ("layer/26b-a4b-mini/full-own-hot", "forward/26b-a4b-mini/uniform-l1/no-cache"),
    "moe-shared-mlp-missing": ("layer/26b-a4b-mini/full-own-hot", "forward/26b-a4b-mini/uniform-l1/no-cache"),
    "moe-branch-norms-swapped": ("layer/26b-a4b-mini/full-own-hot", "forward/26b-a4b-mini/uniform-l1/no-cache"),
    "moe-experts-fed-mlp-norm": ("layer/26b-a4b-mini/full-own-hot", "forward/26b-a4b-mini/uniform-l1/no-cache"),
    # logits
    "softcap-missing": ("module/softcap/cap-12", "forward/e2b-mini/uniform-l1/no-cache"),
    "softcap-wrong-formula": ("module/softcap/cap-12", "forward/e2b-mini/uniform-l1/no-cache"),
    "softcap-hardcoded": ("module/softcap/cap-12", "forward/trap-softcap/uniform-l19/no-cache"),
    "softcap-not-scaled-back": ("module/softcap/cap-12", "forward/e2b-mini/uniform-l1/no-cache"),
    # configuration
    "config-flat-not-read": ("module/inv-freq/e2b-full", "forward/trap-eps/uniform-l19/no-cache"),
    "sliding-pattern-fixed": (
        "module/shared-kv-donors/e2b",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
    "rope-default-factor-one": ("forward/layout-no-rope/uniform-l19/no-cache",),
    "rope-default-single-theta": ("forward/layout-no-rope/uniform-l19/no-cache",),
    "expert-width-one-spelling": ("layer/26b-a4b-mini/full-own-hot", "forward/26b-a4b-mini/uniform-l1/no-cache"),
    "moe-built-on-dense": ("forward/layout-dense-experts/uniform-l19/no-cache",),
    "global-kv-heads-ignored": ("attention/12b-mini/full-own", "forward/12b-mini/uniform-l1/no-cache"),
    "per-layer-config-not-read": ("forward/layout-per-layer-config/uniform-l19/no-cache",),
    "softcap-read-from-top-level": ("forward/e2b-mini/uniform-l1/no-cache",),
    "double-wide-ignored": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "double-wide-everywhere": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "kv-sharing-not-implemented": (
        "module/shared-kv-donors/e2b",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
    "head-dim-derived": (
        "module/inv-freq/e2b-sliding",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
    # weight loading
    "shared-kv-weights-expected": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "shared-kv-weights-refused": ("layer/e4b-mini/full-own", "forward/e4b-mini/uniform-l1/no-cache"),
    "prefix-language-model-unknown": ("forward/layout-language-model/uniform-l19/no-cache",),
    "towers-not-left-out": ("forward/layout-towers/uniform-l19/no-cache",),
    "tower-tensors-taken-for-text": ("forward/layout-towers/uniform-l19/no-cache",),
    "experts-not-loaded": ("forward/layout-split-experts/uniform-l19/no-cache",),
    "experts-up-before-gate": ("forward/layout-split-experts/uniform-l19/no-cache",),
    "experts-layout-guessed": ("layer/26b-a4b-mini/full-own-hot", "forward/26b-a4b-mini/uniform-l1/no-cache"),
    "first-shard-only": ("forward/layout-sharded/uniform-l19/no-cache",),
    "bf16-read-as-f16": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
    "norm-weights-shifted": ("attention/e2b-mini/full-own", "forward/e2b-mini/uniform-l1/no-cache"),
}
"""Known mistake -> the cases that were made for it, the smallest first."""


def hunted_by(case_id: str) -> list[str]:
    """Ids of the known mistakes that a case was made to catch."""
    return [mutant_id for mutant_id, cases in CAUGHT_BY.items() if case_id in cases]


def reported(mutant_ids: Iterable[str]) -> list[str]:
    """Addresses of public reports of these mistakes, each once."""
    return list(dict.fromkeys(url for mutant_id in mutant_ids for url in MUTANTS[mutant_id].urls))
