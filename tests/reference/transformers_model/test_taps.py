"""The taps of transformers are complete, have their shapes, and are what their names say."""

import numpy as np
import pytest

from gemma4_contract.tensors import Array

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.support.transformers_models import (
    IDS,
    LENGTH,
    POSITIONS,
    SLIDING,
    config_of,
    each_kind,
    error,
    expected_shapes,
    forward,
    model_of,
    owner_of,
    truth,
    weights_of,
)


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
    over_keys = (".k_read", ".v_read", ".probs")
    shapes = {name: shape for name, shape in expected_shapes(config_of("ple")).items() if not name.endswith(over_keys)}
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
        "self_attn.k_read": keys,
        "self_attn.v_read": values,
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
