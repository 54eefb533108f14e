"""The five published text configurations, and a small model of each architectural kind with deterministic weights."""

import zlib
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_impl import Decoder, parse_config

S, F = "sliding_attention", "full_attention"
ROPE = {
    F: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    S: {"rope_theta": 10000.0, "rope_type": "default"},
}
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def text_config(**sizes: Any) -> dict[str, Any]:
    """A published text config: what is the same in all five, and `sizes`."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": False,
        "bos_token_id": 2,
        "dtype": "bfloat16",
        "enable_moe_block": False,
        "eos_token_id": 1,
        "expert_intermediate_size": None,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 512,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size_per_layer_input": 0,
        "initializer_range": 0.02,
        "max_position_embeddings": 262144,
        "model_type": "gemma4_text",
        "num_experts": None,
        "num_global_key_value_heads": None,
        "num_kv_shared_layers": 0,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_parameters": ROPE,
        "sliding_window": 1024,
        "tie_word_embeddings": True,
        "top_k_experts": None,
        "use_bidirectional_attention": "vision",
        "use_cache": True,
        "use_double_wide_mlp": False,
        "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144,
        **sizes,
    }


def without(d: dict[str, Any], *keys: str) -> dict[str, Any]:
    """`d` less some keys."""
    return {key: value for key, value in d.items() if key not in keys}


FAMILY: dict[str, dict[str, Any]] = {
    "e2b": text_config(
        hidden_size=1536,
        hidden_size_per_layer_input=256,
        intermediate_size=6144,
        layer_types=([S] * 4 + [F]) * 7,
        max_position_embeddings=131072,
        num_attention_heads=8,
        num_hidden_layers=35,
        num_key_value_heads=1,
        num_kv_shared_layers=20,
        sliding_window=512,
        use_bidirectional_attention=None,
        use_double_wide_mlp=True,
    ),
    "e4b": text_config(
        hidden_size=2560,
        hidden_size_per_layer_input=256,
        intermediate_size=10240,
        layer_types=([S] * 5 + [F]) * 7,
        max_position_embeddings=131072,
        num_attention_heads=8,
        num_hidden_layers=42,
        num_key_value_heads=2,
        num_kv_shared_layers=18,
        sliding_window=512,
        use_bidirectional_attention=None,
    ),
    "12b": without(
        text_config(
            attention_k_eq_v=True,
            hidden_size=3840,
            intermediate_size=15360,
            layer_types=([S] * 5 + [F]) * 8,
            model_type="gemma4_unified_text",
            moe_intermediate_size=None,
            num_attention_heads=16,
            num_global_key_value_heads=1,
            num_hidden_layers=48,
            num_key_value_heads=8,
        ),
        "dtype",
        "expert_intermediate_size",
    ),
    "26b-a4b": without(
        text_config(
            attention_k_eq_v=True,
            enable_moe_block=True,
            hidden_size=2816,
            intermediate_size=2112,
            layer_types=([S] * 5 + [F]) * 5,
            moe_intermediate_size=704,
            num_attention_heads=16,
            num_experts=128,
            num_global_key_value_heads=2,
            num_hidden_layers=30,
            num_key_value_heads=8,
            top_k_experts=8,
        ),
        "expert_intermediate_size",
    ),
    "31b": text_config(
        attention_k_eq_v=True,
        hidden_size=5376,
        intermediate_size=21504,
        layer_types=([S] * 5 + [F]) * 10,
        num_attention_heads=32,
        num_global_key_value_heads=4,
        num_hidden_layers=60,
        num_key_value_heads=16,
    ),
}

_TINY = {"vocab_size": 64, "vocab_size_per_layer_input": 64, "head_dim": 8, "global_head_dim": 16, "sliding_window": 8}
SMALL: dict[str, dict[str, Any]] = {
    # Donors 3 (sliding) and 4 (full) are not adjacent to their users; both types occur in the shared range.
    "e2b": FAMILY["e2b"]
    | _TINY
    | {
        "hidden_size": 24,
        "hidden_size_per_layer_input": 6,
        "intermediate_size": 20,
        "layer_types": [S, S, F, S, F, S, S, F],
        "num_attention_heads": 4,
        "num_hidden_layers": 8,
        "num_key_value_heads": 2,
        "num_kv_shared_layers": 3,
    },
    "31b": FAMILY["31b"]
    | _TINY
    | {
        "hidden_size": 24,
        "intermediate_size": 40,
        "layer_types": [S, S, F, S, F],
        "num_attention_heads": 6,
        "num_global_key_value_heads": 2,
        "num_hidden_layers": 5,
        "num_key_value_heads": 3,
    },
    "26b-a4b": FAMILY["26b-a4b"]
    | _TINY
    | {
        "hidden_size": 24,
        "intermediate_size": 16,
        "layer_types": [S, F, S, F],
        "moe_intermediate_size": 10,
        "num_attention_heads": 4,
        "num_experts": 7,
        "num_global_key_value_heads": 1,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "top_k_experts": 3,
    },
}


# Sharp attention, branches that do not drown the residual (errors would explode with depth), and a hot final norm, so
# that the softcap bends the logits.
BASES = {"q_norm": 0.4, "post_": 0.25, "model.norm": 8.0}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A deterministic float32 weight with bf16-representable values, never at its usual initial value."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        scale = 3.0 if "embed_tokens" in name else 1.0
        value = rng.normal(size=shape) * scale / np.sqrt(shape[-1])
    elif name.endswith("layer_scalar"):
        value = rng.uniform(0.85, 0.95, shape)
    elif name.endswith("per_expert_scale"):
        value = np.exp2(rng.uniform(-1.5, 1.5, shape))
    elif name.endswith("router.scale"):
        value = rng.uniform(1.0, 2.0, shape) * np.sqrt(shape[-1])
    else:
        base = next((base for part, base in BASES.items() if part in name), 1.0)
        value = base * rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
    bits = value.astype(np.float32).view(np.uint32)
    rounded: np.ndarray = ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return rounded


def weights(decoder: Decoder) -> dict[str, np.ndarray]:
    """`weight` for every parameter."""
    return {name: weight(name, tuple(value.shape)) for name, value in decoder.tensors().items()}


def small(kind: str, dtype: str = "float32") -> Decoder:
    """A small decoder of one kind, weights loaded."""
    decoder = Decoder(parse_config(SMALL[kind]))
    arrays = [(name, mx.array(value).astype(DTYPES[dtype])) for name, value in weights(decoder).items()]
    decoder.load_weights(arrays, strict=True)
    return decoder


def ids(batch: int, length: int, seed: int = 0) -> np.ndarray:
    """Token ids [B, L] int32, none of them the pad id."""
    return np.random.default_rng(seed).integers(1, 64, size=(batch, length), dtype=np.int32)


def rel_rms(got: Any, want: Any) -> float:
    """sqrt(mean((got - want)^2) / mean(want^2)) in float64; a NaN makes it NaN."""
    if isinstance(got, mx.array):
        got = np.array(got.astype(mx.float32))
    if isinstance(want, mx.array):
        want = np.array(want.astype(mx.float32))
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"got shape {got.shape}, expected {want.shape}"
    return float(np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)))
