"""transformers as a reference: complete taps, equal plans, lifted islands, strict inputs, nothing left patched."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gemma4_contract.tensors import Array

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.gemma4 import modeling_gemma4  # noqa: E402  (after importorskip)

from gemma4_contract.subgraph import Subgraph, subgraph  # noqa: E402
from reference.transformers_model import TransformersModel  # noqa: E402  (after importorskip)

SLIDING, FULL = "sliding_attention", "full_attention"
LENGTH = 19  # more than twice the window
IDS = np.random.default_rng(1).integers(3, 128, (2, LENGTH))
POSITIONS = np.tile(np.arange(LENGTH), (2, 1))

COMMON: dict[str, Any] = {
    "model_type": "gemma4_text",
    "attention_bias": False,
    "attention_k_eq_v": False,
    "dtype": "bfloat16",
    "enable_moe_block": False,
    "expert_intermediate_size": None,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 32,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 96,
    "hidden_size_per_layer_input": 0,
    "intermediate_size": 64,
    "layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL],
    "max_position_embeddings": 131072,
    "num_attention_heads": 4,
    "num_experts": None,
    "num_global_key_value_heads": None,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "num_kv_shared_layers": 0,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
        SLIDING: {"rope_type": "default", "rope_theta": 1e4},
    },
    "sliding_window": 8,
    "tie_word_embeddings": True,
    "top_k_experts": None,
    "use_bidirectional_attention": None,
    "use_double_wide_mlp": False,
    "vocab_size": 128,
    "vocab_size_per_layer_input": 128,
}
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"final_logit_softcapping": None},
    "ple": {
        "hidden_size_per_layer_input": 8,
        "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL],  # donors 0 and 1, shared 2, 3, 4
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 3,
        "use_double_wide_mlp": True,
    },
    "k_eq_v": {
        "model_type": "gemma4_unified_text",
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
        "use_bidirectional_attention": "vision",
    },
    "moe": {
        "attention_k_eq_v": True,
        "enable_moe_block": True,
        "moe_intermediate_size": 24,
        "num_experts": 8,
        "num_global_key_value_heads": 1,
        "top_k_experts": 2,
    },
}
PLANS: dict[str, list[int]] = {"one-shot": [19], "chunks": [5, 5, 5, 4], "two": [11, 8], "tokens": [1] * 19}
each_kind = pytest.mark.parametrize("kind", KINDS)


def config_of(kind: str) -> dict[str, Any]:
    return COMMON | KINDS[kind]


def bf16(values: Any) -> Array:
    """Round to bfloat16, kept as float64."""
    return np.asarray(values).astype(ml_dtypes.bfloat16).astype(np.float64)


@cache
def weights_of(kind: str) -> Mapping[str, Array]:
    """Random weights, none at the value that a fresh model has: float64, bf16-representable."""
    fields = {name: value for name, value in config_of(kind).items() if name != "model_type"}
    with torch.device("meta"):
        shapes = transformers.Gemma4ForCausalLM(transformers.Gemma4TextConfig(**fields)).state_dict()
    rng = np.random.default_rng(0)
    weights = {}
    for name, tensor in shapes.items():
        noise = rng.standard_normal(tensor.shape)
        if name == "lm_head.weight":
            continue
        if name.endswith("layer_scalar"):
            weights[name] = bf16([0.9])
        elif name.endswith("norm.weight") or "layernorm" in name:
            weights[name] = bf16(1 + 0.2 * noise)
        elif name.endswith("scale"):
            weights[name] = bf16(1.5 + 0.3 * noise)
        else:
            weights[name] = bf16(noise / np.sqrt(tensor.shape[-1]))
    return weights


@cache
def model_of(kind: str, dtype: str = "float64", attention: str = "eager", *, lifted: bool = False) -> TransformersModel:
    return TransformersModel(config_of(kind), weights_of(kind), dtype=dtype, attention=attention, lifted=lifted)  # type: ignore[arg-type]  # parametrised


@cache
def forward(
    kind: str, dtype: str = "float64", attention: str = "eager", *, lifted: bool = False
) -> Mapping[str, Array]:
    """The taps of a forward without a cache."""
    model = model_of(kind, dtype, attention, lifted=lifted)
    return model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)


def truth(kind: str) -> Mapping[str, Array]:
    return forward(kind, lifted=True)


def error(got: Array, wanted: Array) -> float:
    """Largest error relative to the largest value; NaN if any value is NaN."""
    return float(np.abs(got.astype(np.float64) - wanted).max() / np.abs(wanted).max())


def worst(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """The largest error over all taps of `got`; NaN spreads."""
    return float(np.max([error(got[name], wanted[name].astype(np.float64)) for name in got]))


def owner_of(config: Mapping[str, Any], layer: int) -> int:
    """The layer whose keys and values `layer` reads: itself, or the last one of its type before the shared range."""
    types = config["layer_types"]
    first_shared = len(types) - config["num_kv_shared_layers"]
    return layer if layer < first_shared else max(i for i in range(first_shared) if types[i] == types[layer])


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """docs/FIXTURES.md as a table."""
    b, n, d, h = 2, config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]
    rows, p = (b, LENGTH), config["hidden_size_per_layer_input"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (*rows, d), "model.norm": (*rows, d)}
    shapes |= {"logits": (*rows, config["vocab_size"]), "logits.raw": (*rows, config["vocab_size"])}
    if p:
        names = ("model.embed_tokens_per_layer", "model.per_layer_projection_norm", "model.ple")
        shapes |= dict.fromkeys(names, (*rows, n, p))
    for i, layer_type in enumerate(config["layer_types"]):
        full, shared = layer_type == FULL, owner_of(config, i) != i
        e = config["global_head_dim"] if full else config["head_dim"]
        k = (
            config["num_global_key_value_heads"]
            if full and config["attention_k_eq_v"]
            else config["num_key_value_heads"]
        )
        f = config["intermediate_size"] * (2 if shared and config["use_double_wide_mlp"] else 1)
        layer: dict[str, tuple[int, ...]] = dict.fromkeys(
            (
                *("input_layernorm", "self_attn.o_proj", "post_attention_layernorm", "residual_1", "mlp.down_proj"),
                *("pre_feedforward_layernorm", "post_feedforward_layernorm", "residual_2", "output"),
            ),
            (*rows, d),
        )
        layer |= dict.fromkeys(("self_attn.q_norm", "self_attn.q_rope"), (b, h, LENGTH, e))
        layer |= {"self_attn.probs": (b, h, LENGTH, LENGTH), "self_attn.context": (*rows, h * e), "mlp.act": (*rows, f)}
        if not shared:
            layer |= dict.fromkeys(("self_attn.k_norm", "self_attn.k_rope", "self_attn.v_norm"), (b, k, LENGTH, e))
        if config["enable_moe_block"]:
            layer |= dict.fromkeys(("router.proj", "router.combine"), (*rows, config["num_experts"]))
            norms = ("pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2")
            layer |= dict.fromkeys((*norms, "experts"), (*rows, d))
        if p:
            layer |= {"ple_gated": (*rows, p)}
            layer |= dict.fromkeys(("per_layer_projection", "post_per_layer_input_norm"), (*rows, d))
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


# --- taps


@each_kind
def test_taps_are_complete_and_shaped(kind: str) -> None:
    assert {name: tap.shape for name, tap in truth(kind).items()} == expected_shapes(config_of(kind))


@pytest.mark.parametrize(
    ("attention", "steps", "left_pad"), [("sdpa", None, None), ("eager", [19], None), ("eager", None, [0, 0])]
)
def test_probabilities_are_left_out_where_their_keys_are_not_absolute(
    attention: str, steps: list[int] | None, left_pad: list[int] | None
) -> None:
    taps = model_of("ple", "float32", attention).run(IDS, positions=POSITIONS, steps=steps, left_pad=left_pad)
    shapes = {name: shape for name, shape in expected_shapes(config_of("ple")).items() if not name.endswith(".probs")}
    assert {name: tap.shape for name, tap in taps.items()} == shapes


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_taps_bear_the_compute_dtype(dtype: str) -> None:
    assert {str(tap.dtype) for tap in forward("moe", dtype).values()} == {dtype}


def relations(kind: str, index: int) -> dict[str, tuple[Array, Array]]:
    """For a layer: taps paired with what follows from other taps, so that each name sits on the right tensor."""
    taps, weights, config = truth(kind), weights_of(kind), config_of(kind)
    prefix = f"model.layers.{index}."
    donor = f"model.layers.{owner_of(config, index)}.self_attn."

    def tap(name: str) -> Array:
        return taps[prefix + name]

    def linear(x: Array, name: str) -> Array:
        return x @ weights[f"{prefix}{name}.weight"].T

    def gelu(x: Array) -> Array:
        return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))

    hidden = taps["model.embed_tokens"] if index == 0 else taps[f"model.layers.{index - 1}.output"]
    keys, values = taps[donor + "k_rope"], taps[donor + "v_norm"]
    groups = config["num_attention_heads"] // keys.shape[1]
    scores = tap("self_attn.q_rope") @ np.repeat(keys, groups, 1).swapaxes(2, 3)
    back = np.arange(LENGTH)[:, None] - np.arange(LENGTH)
    window = config["sliding_window"] if config["layer_types"][index] == SLIDING else LENGTH
    weight = np.where((back >= 0) & (back < window), np.exp(scores - scores.max(-1, keepdims=True)), 0)
    context = (tap("self_attn.probs") @ np.repeat(values, groups, 1)).swapaxes(1, 2)
    pre = tap("pre_feedforward_layernorm")
    found = {
        "self_attn.probs": weight / weight.sum(-1, keepdims=True),
        "self_attn.context": context.reshape(2, LENGTH, -1),
        "self_attn.o_proj": linear(tap("self_attn.context"), "self_attn.o_proj"),
        "residual_1": hidden + tap("post_attention_layernorm"),
        "mlp.act": gelu(linear(pre, "mlp.gate_proj")) * linear(pre, "mlp.up_proj"),
        "mlp.down_proj": linear(tap("mlp.act"), "mlp.down_proj"),
        "residual_2": tap("residual_1") + tap("post_feedforward_layernorm"),
        "output": 0.8984375 * tap("residual_2"),
    }
    if config["enable_moe_block"]:
        gate, up = np.split(
            np.einsum("bld,xfd->blxf", tap("pre_feedforward_layernorm_2"), weights[f"{prefix}experts.gate_up_proj"]),
            2,
            axis=-1,
        )
        each = np.einsum("blxf,xdf->blxd", gelu(gate) * up, weights[f"{prefix}experts.down_proj"])
        found["experts"] = np.einsum("blx,blxd->bld", tap("router.combine"), each)
        logits = tap("router.proj")
        chosen = np.where(logits >= np.sort(logits, -1)[..., [-config["top_k_experts"]]], np.exp(logits), 0)
        scale = weights[f"{prefix}router.per_expert_scale"]
        found["router.combine"] = chosen / chosen.sum(-1, keepdims=True) * scale
    if config["hidden_size_per_layer_input"]:
        gated = gelu(linear(tap("residual_2"), "per_layer_input_gate"))
        found["ple_gated"] = gated * taps["model.ple"][:, :, index]
        found["per_layer_projection"] = linear(tap("ple_gated"), "per_layer_projection")
        found["output"] = 0.8984375 * (tap("residual_2") + tap("post_per_layer_input_norm"))
    return {name: (tap(name), wanted) for name, wanted in found.items()}


@each_kind
@pytest.mark.parametrize("index", range(5))
def test_each_tap_of_a_layer_is_what_its_name_says(kind: str, index: int) -> None:
    wrong = {name: error(*pair) for name, pair in relations(kind, index).items() if not error(*pair) < 1e-12}
    assert wrong == {}


def test_taps_outside_the_layers_are_what_their_names_say() -> None:
    taps, weights = truth("ple"), weights_of("ple")
    ple = (taps["model.per_layer_projection_norm"] + taps["model.embed_tokens_per_layer"]) / np.sqrt(2)
    assert error(taps["model.ple"], ple) < 1e-14
    raw = taps["model.norm"] @ weights["model.embed_tokens.weight"].T
    assert error(taps["logits.raw"], raw) < 1e-13
    assert error(taps["logits"], 30 * np.tanh(raw / 30)) < 1e-13
    assert np.array_equal(truth("dense")["logits"], truth("dense")["logits.raw"])  # no softcap there


# --- plans


@each_kind
@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_gives_the_taps_of_a_forward_without_cache(kind: str, plan: str) -> None:
    got = model_of(kind, lifted=True).run(IDS, positions=POSITIONS, steps=PLANS[plan], left_pad=None)
    assert worst(got, truth(kind)) < 1e-12


@each_kind
@pytest.mark.parametrize("steps", [None, [22], [11, 11], [1] * 22], ids=str)
def test_a_left_padded_row_gives_the_taps_of_the_row_alone(kind: str, steps: list[int] | None) -> None:
    ids, positions = np.zeros((2, 22), np.int64), np.zeros((2, 22), np.int64)
    ids[0], positions[0] = np.random.default_rng(2).integers(3, 128, 22), np.arange(22)
    ids[1, 3:], positions[1, 3:] = IDS[1], POSITIONS[1]
    got = model_of(kind, lifted=True).run(ids, positions=positions, steps=steps, left_pad=[0, 3])
    real = {  # rows 3 onwards of the padded row, with L where the tap has it
        name: tap[1:, :, 3:] if tap.shape[2] == 22 and tap.ndim == 4 else tap[1:, 3:] for name, tap in got.items()
    }
    assert worst(real, {name: tap[1:] for name, tap in truth(kind).items()}) < 1e-12


def test_the_window_matters_at_this_length() -> None:
    """The control of the plans: were the window not reached, they could not go wrong."""
    wide = TransformersModel(
        config_of("dense") | {"sliding_window": 32},
        weights_of("dense"),
        dtype="float64",
        attention="eager",
        lifted=True,
    ).run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    assert np.abs(wide["logits"] - truth("dense")["logits"])[:, :8].max() < 1e-12
    assert np.abs(wide["logits"] - truth("dense")["logits"])[:, 8:].max(axis=(0, 2)).min() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": [5, 5]}, "steps"),
        ({"steps": [19, 0]}, "steps"),
        ({"left_pad": [0]}, "left_pad"),
        ({"left_pad": [0, 19]}, "left_pad"),
        ({"left_pad": [0, 2]}, "not 0"),
        ({"positions": POSITIONS[:1]}, "positions"),
    ],
    ids=str,
)
def test_a_plan_that_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    fitting: dict[str, Any] = {"positions": POSITIONS, "steps": None, "left_pad": None}
    with pytest.raises(ValueError, match=message):
        model_of("dense", lifted=True).run(IDS, **fitting | arguments)


def test_pads_are_refused_where_transformers_would_make_them_nan() -> None:
    ids, positions = IDS.copy(), np.maximum(POSITIONS - 1, 0)
    ids[:, 0] = 0
    with pytest.raises(ValueError, match="NaN"):
        model_of("dense").run(ids, positions=positions, steps=None, left_pad=[1, 1])


# --- arithmetic


@each_kind
def test_eager_agrees_with_sdpa(kind: str) -> None:
    eager, sdpa = forward(kind, "float32", "eager"), forward(kind, "float32", "sdpa")
    assert worst(sdpa, eager) < 1e-4
    assert worst(sdpa, truth(kind)) < 1e-4


@each_kind
def test_lifting_removes_an_error_of_float32_size(kind: str) -> None:
    assert 1e-10 < error(forward(kind)["logits"], truth(kind)["logits"]) < 1e-5


def rms_norm(taps: Mapping[str, Array]) -> float:
    x = taps["model.embed_tokens"]
    weight = weights_of("moe")["model.layers.0.input_layernorm.weight"]
    wanted = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight
    return error(taps["model.layers.0.input_layernorm"], wanted)


def embedding_scale(taps: Mapping[str, Array]) -> float:
    return error(taps["model.embed_tokens"], weights_of("moe")["model.embed_tokens.weight"][IDS] * np.sqrt(96))


def attention_softmax(taps: Mapping[str, Array]) -> float:
    return float(np.abs(taps["model.layers.0.self_attn.probs"].sum(-1) - 1).max())


def router_softmax(taps: Mapping[str, Array]) -> float:
    weights = taps["model.layers.0.router.combine"] / weights_of("moe")["model.layers.0.router.per_expert_scale"]
    return float(np.abs(weights.sum(-1) - 1).max())


def rope(taps: Mapping[str, Array], layer: int, theta: float, width: int, rotated: int) -> float:
    """Rotate the pairs (j, j + width/2), j < rotated, by position * theta^(-2j/width)."""
    x = taps[f"model.layers.{layer}.self_attn.q_norm"]
    frequency = np.where(np.arange(width // 2) < rotated, theta ** (-2 * np.arange(width // 2) / width), 0)
    angle = np.arange(LENGTH)[:, None] * frequency
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angle), np.sin(angle)
    wanted = np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return error(taps[f"model.layers.{layer}.self_attn.q_rope"], wanted)


ISLANDS: dict[str, Callable[[Mapping[str, Array]], float]] = {
    "RMSNorm": rms_norm,
    "RoPE sliding": lambda taps: rope(taps, 0, 1e4, 16, 8),
    "RoPE full": lambda taps: rope(taps, 2, 1e6, 32, 4),
    "attention softmax": attention_softmax,
    "router softmax": router_softmax,
    "embedding scale": embedding_scale,
}


@pytest.mark.parametrize("island", ISLANDS)
def test_each_island_is_float64_when_lifted_and_float32_when_not(island: str) -> None:
    assert ISLANDS[island](truth("moe")) < 2e-15
    assert 1e-9 < ISLANDS[island](forward("moe")) < 1e-5


def test_the_scale_of_ple_is_lifted_too() -> None:
    table = weights_of("ple")["model.embed_tokens_per_layer.weight"][IDS].reshape(2, LENGTH, 5, 8)
    assert error(truth("ple")["model.embed_tokens_per_layer"], table * np.sqrt(8)) < 1e-15
    assert error(forward("ple")["model.embed_tokens_per_layer"], table * np.sqrt(8)) > 1e-9


@pytest.mark.parametrize(("dtype", "attention"), [("float32", "eager"), ("bfloat16", "eager"), ("float64", "sdpa")])
def test_lifting_is_refused_where_it_cannot_be(dtype: str, attention: str) -> None:
    with pytest.raises(ValueError, match="lifted"):
        model_of("dense", dtype, attention, lifted=True)


# --- the model is transformers' own


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_bit_for_bit_the_model_that_transformers_builds(kind: str, dtype: str) -> None:
    unified = config_of(kind)["model_type"] == "gemma4_unified_text"  # its own classes, which we build as gemma4_text
    family = "Gemma4Unified" if unified else "Gemma4"
    config = getattr(transformers, f"{family}TextConfig")(**config_of(kind))
    plain = getattr(transformers, f"{family}ForCausalLM")._from_config(
        config, dtype=getattr(torch, dtype), attn_implementation="eager", experts_implementation="eager"
    )
    weights = {name: torch.tensor(array) for name, array in weights_of(kind).items()}
    plain.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    with torch.inference_mode():
        logits = plain.eval()(torch.tensor(IDS), use_cache=False).logits
    assert np.array_equal(forward(kind, dtype)["logits"].astype(np.float64), logits.double().numpy())


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_dtype_in_which_weights_come_does_not_matter(dtype: Any) -> None:
    weights = {name: array.astype(dtype) for name, array in weights_of("ple").items()}
    for array in weights.values():
        array.flags.writeable = False  # as from a memory-mapped file
    model = TransformersModel(config_of("ple"), weights, dtype="bfloat16", attention="eager")
    got = model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    assert all(np.array_equal(got[name], tap) for name, tap in forward("ple", "bfloat16").items())


# --- strictness


def build(kind: str, weights: Mapping[str, Array], **changes: Any) -> TransformersModel:
    return TransformersModel(config_of(kind) | changes, weights, dtype="float32", attention="eager")


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.1.layer_scalar", "model.layers.0.self_attn.k_proj.weight"]
)
def test_a_missing_weight_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"missing.*{name}"):
        build("ple", {key: array for key, array in weights_of("ple").items() if key != name})


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.v_norm.weight",
        "model.layers.2.self_attn.v_proj.weight",  # a full layer's values are its keys
        "model.layers.9.self_attn.k_proj.weight",
        "language_model.model.norm.weight",
    ],
)
def test_an_unexpected_weight_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"unexpected.*{name}"):
        build("k_eq_v", {**weights_of("k_eq_v"), name: np.ones((2, 2))})


def test_a_misshapen_weight_is_named_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"model.norm.weight: got shape \(95,\), expected \(96,\)"):
        build("dense", {**weights_of("dense"), "model.norm.weight": np.ones(95)})


def test_weights_that_checkpoints_repeat_are_ignored() -> None:
    surplus = {
        f"model.layers.3.self_attn.{name}.weight": np.full((3, 3), np.nan) for name in ("k_proj", "v_proj", "k_norm")
    }
    surplus["lm_head.weight"] = weights_of("ple")["model.embed_tokens.weight"]
    got = build("ple", {**weights_of("ple"), **surplus}).run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    assert np.array_equal(got["logits"], forward("ple", "float32")["logits"])


def test_a_head_of_its_own_is_refused() -> None:
    head = weights_of("ple")["model.embed_tokens.weight"] + 1
    with pytest.raises(ValueError, match=r"unexpected.*lm_head"):
        build("ple", {**weights_of("ple"), "lm_head.weight": head})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": [SLIDING, SLIDING, FULL, SLIDING, SLIDING]}, "layer_types"),
        ({"layer_types": None}, "layer_types"),
        ({"layer_types": [SLIDING, FULL]}, "layer_types"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"model_type": "gemma3_text"}, "model_type"),
    ],
    ids=str,
)
def test_a_configuration_that_transformers_would_change_is_refused(changes: dict[str, Any], message: str) -> None:
    given = repr(changes)
    with pytest.raises(ValueError, match=message):
        build("dense", weights_of("dense"), **changes)
    assert repr(changes) == given  # transformers rewrites the caller's own list


# --- nothing stays behind


def traces(model: TransformersModel) -> list[str]:
    """What a run could leave behind: hooks, wrapped functions, a lifted torch."""
    inner = model._model
    hooked = [name for name, module in inner.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    wrapped = [name for name in ("project_per_layer_inputs",) if name in vars(inner.model)]
    if modeling_gemma4.apply_rotary_pos_emb.__module__ != modeling_gemma4.__name__:
        wrapped.append("apply_rotary_pos_emb")
    one = torch.ones(1, dtype=torch.float64)
    softmax = torch.nn.functional.softmax(one, dim=0, dtype=torch.float32)
    lifted = [str(t.dtype) for t in (one.float(), one.to(torch.float32), softmax) if t.dtype != torch.float32]
    return [*hooked, *wrapped, *lifted]


def test_nothing_stays_patched_after_a_run_or_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    verbosity = transformers.utils.logging.get_verbosity()
    model = TransformersModel(config_of("ple"), weights_of("ple"), dtype="float64", attention="eager", lifted=True)
    assert traces(model) == []
    assert transformers.utils.logging.get_verbosity() == verbosity
    during: list[str] = []

    def fail(_hidden: Any) -> None:
        during.extend(traces(model))
        raise RuntimeError("deep inside")

    with monkeypatch.context() as patch:
        patch.setattr(model._model.model.norm, "forward", fail)
        with pytest.raises(RuntimeError, match="deep inside"):
            model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    assert {"lm_head", "project_per_layer_inputs", "apply_rotary_pos_emb", "torch.float64"} <= set(
        during
    )  # it can tell
    assert traces(model) == []
    again = model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)
    assert traces(model) == []
    assert all(np.array_equal(again[name], tap) for name, tap in truth("ple").items())


def test_taps_and_weights_are_copies() -> None:
    weights = {name: array.copy() for name, array in weights_of("dense").items()}
    model = TransformersModel(config_of("dense"), weights, dtype="float64", attention="eager", lifted=True)
    for array in weights.values():
        array[...] = np.nan
    for _ in range(2):
        taps = model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)
        assert all(np.array_equal(taps[name], tap) for name, tap in truth("dense").items())
        for tap in taps.values():
            tap[...] = np.nan


def test_no_two_taps_share_memory() -> None:
    taps = list(truth("dense").values())  # without a softcap `logits.raw` and `logits` are one tensor in transformers
    assert not any(np.may_share_memory(one, other) for i, one in enumerate(taps) for other in taps[:i])


# --- single layers


def layer_of(kind: str, index: int, taps: Mapping[str, Array]) -> Subgraph:
    """A whole layer as a question, out of a forward's own taps."""
    owner = owner_of(config_of(kind), index)
    keys, values = (taps[f"model.layers.{owner}.self_attn.{name}"] for name in ("k_rope", "v_norm"))
    return Subgraph(
        layer=index,
        positions=POSITIONS,
        hidden=taps["model.embed_tokens"] if index == 0 else taps[f"model.layers.{index - 1}.output"],
        given={},
        donated=None if owner == index else (keys, values),
        slice_of_ple=taps["model.ple"][:, :, index] if "model.ple" in taps else None,
    )


@each_kind
@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(("dtype", "attention"), [("float64", "eager"), ("bfloat16", "eager"), ("float32", "sdpa")])
def test_a_layer_fed_from_a_forward_repeats_its_taps(kind: str, index: int, dtype: str, attention: str) -> None:
    lifted = dtype == "float64"
    taps = forward(kind, dtype, attention, lifted=lifted)
    wanted = {name: tap for name, tap in taps.items() if name.startswith(f"model.layers.{index}.")}
    got = model_of(kind, dtype, attention, lifted=lifted).run_subgraph(layer_of(kind, index, taps))
    assert got.keys() == wanted.keys()
    assert worst(got, wanted) < {"float64": 1e-13, "bfloat16": 1e-2, "float32": 1e-5}[dtype]


@each_kind
@pytest.mark.parametrize("index", range(5))
def test_attention_fed_from_a_forward_repeats_its_taps(kind: str, index: int) -> None:
    taps = forward(kind, "float64", "eager", lifted=True)
    prefix = f"model.layers.{index}."
    wanted = {name: tap for name, tap in taps.items() if name.startswith(f"{prefix}self_attn.")}
    whole = layer_of(kind, index, taps)
    x = f"{prefix}input_layernorm"
    inputs = {"x": taps[x], "positions": POSITIONS}
    if whole.donated is not None:
        inputs |= dict(zip("kv", whole.donated, strict=True))
    alone = subgraph("attention", {"layer": index}, inputs)
    got = model_of(kind, lifted=True).run_subgraph(alone)
    assert {name for name in got if name.startswith(f"{prefix}self_attn.")} == wanted.keys()
    assert worst({name: got[name] for name in wanted}, wanted) < 1e-13


@pytest.mark.parametrize("index", [0, 1])
def test_rope_of_a_late_position_is_exact_only_when_lifted(index: int) -> None:
    """Scores depend on distances alone, so shifting all positions must not move the context."""
    early = layer_of("ple", index, truth("ple"))
    late = dataclasses.replace(early, positions=POSITIONS + 100_000)
    name = f"model.layers.{index}.self_attn.context"
    shifts = [
        error(model.run_subgraph(late)[name], model.run_subgraph(early)[name])
        for model in (model_of("ple", lifted=True), model_of("ple"))
    ]
    assert shifts[0] < 1e-9
    assert shifts[1] > 1e-5


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (0, {"slice_of_ple": None}, "ple"),
        (0, {"slice_of_ple": np.zeros((2, LENGTH, 3))}, "ple"),
        (0, {"hidden": np.zeros((2, LENGTH, 95))}, "hidden"),
        (0, {"positions": POSITIONS[:, :-1]}, "positions"),
        (0, {"donated": (np.zeros((2, 1, LENGTH, 16)),) * 2}, "shared_kv"),
        (3, {"donated": None}, "shared_kv"),
        (3, {"donated": (np.zeros((2, 1, LENGTH, 32)),) * 2}, "shared_kv keys"),
    ],
    ids=["no-ple", "ple-width", "width", "positions", "superfluous", "no-donor", "head-dim"],
)
def test_an_argument_that_does_not_fit_the_layer_is_refused(index: int, changes: dict[str, Any], message: str) -> None:
    question = dataclasses.replace(layer_of("ple", index, truth("ple")), **changes)
    with pytest.raises(ValueError, match=message):
        model_of("ple", lifted=True).run_subgraph(question)
