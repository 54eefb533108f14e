"""The taps: complete, named and shaped as docs/FIXTURES.md says, consistent, and without effect."""

import mlx.core as mx
import numpy as np
import pytest

from gemma4_contract.recording import Recording
from mlx_impl import Config
from mlx_impl.model import moe, taps
from tests.support import gemma4_small as g

B, L = 2, 10


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """Every tap of a forward pass with its shape, written from the table and not from the code."""
    width, n, per_layer = config.hidden_size, config.num_hidden_layers, config.hidden_size_per_layer_input
    hidden = (B, L, width)
    names: dict[str, tuple[int, ...]] = {"model.embed_tokens": hidden, "model.norm": hidden}
    if per_layer:
        for name in ("embed_tokens_per_layer", "per_layer_projection_norm", "ple"):
            names[f"model.{name}"] = (B, L, n, per_layer)
    for i in range(n):
        heads, head_dim, kv_heads = config.num_attention_heads, config.head_dim_of(i), config.kv_heads_of(i)
        layer: dict[str, tuple[int, ...]] = {
            "self_attn.q_norm": (B, heads, L, head_dim),
            "self_attn.q_rope": (B, heads, L, head_dim),
            "self_attn.probs": (B, heads, L, L),
            "self_attn.context": (B, L, heads * head_dim),
            "mlp.act": (B, L, config.mlp_width(i)),
        }
        layer |= dict.fromkeys(
            [
                "input_layernorm",
                "self_attn.o_proj",
                "post_attention_layernorm",
                "residual_1",
                "pre_feedforward_layernorm",
                "mlp.down_proj",
                "post_feedforward_layernorm",
                "residual_2",
                "output",
            ],
            hidden,
        )
        if not config.is_kv_shared(i):
            keys = ["self_attn.k_norm", "self_attn.k_rope", "self_attn.v_norm"]
            layer |= dict.fromkeys(keys, (B, kv_heads, L, head_dim))
        if config.moe is not None:
            layer |= dict.fromkeys(["router.proj", "router.combine"], (B, L, config.moe.num_experts))
            sparse = "post_feedforward_layernorm_1 pre_feedforward_layernorm_2 experts post_feedforward_layernorm_2"
            layer |= dict.fromkeys(sparse.split(), hidden)
        if per_layer:
            layer["ple_gated"] = (B, L, per_layer)
            layer |= dict.fromkeys(["per_layer_projection", "post_per_layer_input_norm"], hidden)
        names |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    vocabulary = (B, L, config.vocab_size)
    return names | {"logits.raw": vocabulary, "logits": vocabulary}


@pytest.mark.parametrize("kind", g.SMALL)
def test_names_and_shapes_are_complete(kind: str) -> None:
    model = g.small(kind)
    seen: list[tuple[str, tuple[int, ...]]] = []

    def tap(name: str, value: mx.array) -> mx.array:
        seen.append((name, tuple(value.shape)))
        return value

    model(mx.array(g.ids(B, L)), tap=tap)
    assert len(seen) == len(dict(seen))  # each exactly once
    assert dict(seen) == expected(model.config)


@pytest.mark.parametrize("kind", g.SMALL)
def test_looking_changes_nothing(kind: str) -> None:
    model, ids = g.small(kind), mx.array(g.ids(B, L))
    looked = model(ids, tap=Recording())
    assert mx.array_equal(looked, model(ids))


@pytest.mark.parametrize("kind", g.SMALL)
def test_taps_fit_together(kind: str) -> None:
    model = g.small(kind)
    got: dict[str, mx.array] = {}
    logits = model(mx.array(g.ids(B, L)), tap=Recording(taps=got))
    tap = {name: np.array(value) for name, value in got.items()}
    assert np.array_equal(tap["logits"], np.array(logits))
    h = tap["model.embed_tokens"]
    for i in range(len(model.model.layers)):
        at = f"model.layers.{i}."
        assert np.array_equal(tap[at + "residual_1"], h + tap[at + "post_attention_layernorm"])
        assert np.array_equal(tap[at + "residual_2"], tap[at + "residual_1"] + tap[at + "post_feedforward_layernorm"])
        branch = tap.get(at + "post_per_layer_input_norm", np.float32(0))
        scalar = np.array(model.model.layers[i].layer_scalar)
        assert scalar.item() != 1.0
        assert np.array_equal(tap[at + "output"], (tap[at + "residual_2"] + branch) * scalar)
        assert tap[at + "self_attn.probs"].sum(-1) == pytest.approx(1.0, abs=1e-5)
        h = tap[at + "output"]


def test_v_norm_of_a_k_eq_v_layer_comes_from_the_raw_key() -> None:
    model = g.small("31b")
    got: dict[str, mx.array] = {}
    model(mx.array(g.ids(B, L)), tap=Recording(taps=got))
    attention = model.model.layers[2].self_attn
    assert "v_proj" not in attention
    key = np.array(got["model.layers.2.self_attn.k_norm"]) / np.array(attention.k_norm.weight)
    assert g.rel_rms(got["model.layers.2.self_attn.v_norm"], key) < 1e-6


def test_scope() -> None:
    seen: list[str] = []
    inner = taps.scope(taps.scope(lambda name, _value: seen.append(name), "a."), "b.")
    inner("c", mx.zeros(()))
    assert seen == ["a.b.c"]
    assert taps.scope(taps.unwatched, "a.") is taps.unwatched


@pytest.mark.parametrize("kind", ["26b-a4b"])
def test_nothing_is_computed_for_nobody(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids, made = g.small(kind), mx.array(g.ids(B, L)), []
    right = moe.combine_matrix
    monkeypatch.setattr(moe, "combine_matrix", lambda *args: made.append(args) or right(*args))
    model(ids)
    assert made == []
    model(ids, tap=Recording())
    assert len(made) == model.config.num_hidden_layers
