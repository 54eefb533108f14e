"""Taps of a small hand-made module tree by the graph alone, in PyTorch and in MLX: names, layouts, calls, no residue.

B batch, L query length, D hidden, H query heads, K key/value heads, E head dim, P per-layer width, N layers, F
feed-forward width, X experts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conformance.adapters.module_tree import reads

B, D, H, K, E, P, N, F, X, V = 2, 6, 2, 1, 3, 4, 2, 5, 3, 7
CONFIG = SimpleNamespace(num_hidden_layers=N, hidden_size_per_layer_input=P)
STEPS = (3, 2)
L = sum(STEPS)


@dataclass(frozen=True, kw_only=True)
class Framework:
    """What the toy needs of a framework: its base class, a list of layers, arrays and taps."""

    module: Any
    layers: Callable[[list[Any]], Any]
    array: Callable[[Any], Any]
    numpy: Callable[[Any], Any]
    taps: Any
    gives_probs: bool
    gives_logits: bool


def torch_framework() -> Framework:
    torch = pytest.importorskip("torch")
    from conformance.adapters.module_tree_torch import torch_taps

    return Framework(
        module=torch.nn.Module,
        layers=torch.nn.ModuleList,
        array=lambda x: torch.tensor(x),
        numpy=lambda x: x.numpy(),
        taps=torch_taps,
        gives_probs=True,
        gives_logits=True,
    )


def mlx_framework() -> Framework:
    mx = pytest.importorskip("mlx.core")
    from mlx.nn.layers.base import Module

    from conformance.adapters.module_tree_mlx import mlx_taps

    return Framework(
        module=Module,
        layers=list,
        array=lambda x: mx.array(x.astype(np.float32) if x.dtype.kind == "f" else x),
        numpy=np.array,
        taps=mlx_taps,
        gives_probs=False,
        gives_logits=False,
    )


@pytest.fixture(params=[torch_framework, mlx_framework], ids=["torch", "mlx"])
def framework(request: pytest.FixtureRequest) -> Framework:
    made: Framework = request.param()
    return made


def toy(frame: Framework, *, flat: bool) -> tuple[Any, dict[str, list[Any]]]:
    """A tree with Hugging Face's names that computes nonsense, and what it notes of itself, in the layouts of the taps.

    With `flat` it hands tokens to the experts as one axis of B*L, as transformers does; without, as mlx-lm does.
    """
    notes: dict[str, list[Any]] = {}

    def note(tap: str, value: Any) -> Any:
        notes.setdefault(tap, []).append(frame.numpy(value).copy())
        return value

    class Times(frame.module):  # type: ignore[misc]  # the base is a value
        """Any module of one argument: a factor of its own, and another last axis where it has one."""

        def __init__(self, factor: float, width: int | None = None) -> None:
            super().__init__()
            self.factor, self.width = factor, width

        def forward(self, x: Any) -> Any:
            y = x * self.factor
            return y if self.width is None else y[..., :1] + frame.array(np.arange(float(self.width)))

        __call__ = forward if frame.gives_probs is False else frame.module.__call__

    class Attention(frame.module):  # type: ignore[misc]
        def __init__(self, layer: int) -> None:
            super().__init__()
            self.layer = layer
            self.q_norm, self.k_norm, self.v_norm = Times(2.0), Times(3.0), Times(5.0)
            self.o_proj = Times(0.5, D)

        def forward(self, x: Any) -> Any:
            prefix = f"model.layers.{self.layer}.self_attn."
            length = x.shape[1]
            q = self.q_norm(x.reshape((B, length, H, E)))
            k = self.k_norm(x[..., :E].reshape((B, length, K, E)))
            v = self.v_norm(k)
            for name, value in (("q_norm", q), ("k_norm", k), ("v_norm", v)):
                note(prefix + name, value.swapaxes(1, 2))
            context = note(prefix + "context", q.reshape((B, length, H * E)) + v[:, :, 0, :1])
            probs = note(prefix + "probs", q.swapaxes(1, 2)[..., :1] + frame.array(np.zeros(length)))
            return note(prefix + "o_proj", self.o_proj(context)), probs

        __call__ = forward if frame.gives_probs is False else frame.module.__call__

    class MLP(frame.module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.down_proj = Times(0.7, D)

    class Router(frame.module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.proj = Times(1.5, X)

    class Layer(frame.module):  # type: ignore[misc]
        def __init__(self, layer: int) -> None:
            super().__init__()
            self.layer = layer
            self.self_attn, self.mlp, self.router = Attention(layer), MLP(), Router()
            self.input_layernorm, self.post_attention_layernorm = Times(1.1), Times(1.2)
            self.pre_feedforward_layernorm, self.post_feedforward_layernorm = Times(1.3), Times(1.4)
            self.pre_feedforward_layernorm_2, self.experts = Times(1.6), Times(0.3)
            self.per_layer_input_gate, self.per_layer_projection = Times(0.9, P), Times(0.2, D)

        def forward(self, h: Any) -> Any:
            prefix = f"model.layers.{self.layer}."
            length = h.shape[1]
            x = note(prefix + "input_layernorm", self.input_layernorm(h))
            attended, _ = self.self_attn(x)
            h = note(prefix + "residual_1", h + self.post_attention_layernorm(attended))
            note(prefix + "post_attention_layernorm", attended * 1.2)
            x = note(prefix + "pre_feedforward_layernorm", self.pre_feedforward_layernorm(h))
            act = note(prefix + "mlp.act", x[..., :F] * 2.0)
            dense = note(prefix + "mlp.down_proj", self.mlp.down_proj(act))
            rows = h.reshape((B * length, D)) if flat else h
            note(prefix + "router.proj", self.router.proj(rows).reshape((B, length, X)))
            second = self.pre_feedforward_layernorm_2(rows)
            note(prefix + "pre_feedforward_layernorm_2", second.reshape((B, length, D)))
            sparse = note(prefix + "experts", self.experts(second).reshape((B, length, D)))
            branch = note(prefix + "post_feedforward_layernorm", self.post_feedforward_layernorm(dense + sparse))
            h = note(prefix + "residual_2", h + branch)
            gated = note(prefix + "ple_gated", self.per_layer_input_gate(h))
            h *= 0.5  # in PyTorch in place, as transformers multiplies by layer_scalar
            h = h + note(prefix + "per_layer_projection", self.per_layer_projection(gated))
            return note(prefix + "output", h), "what else a layer returns"

        __call__ = forward if frame.gives_probs is False else frame.module.__call__

    class Inner(frame.module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens, self.embed_tokens_per_layer = Times(1.0), Times(1.0)
            self.layers = frame.layers([Layer(layer) for layer in range(N)])
            self.norm = Times(0.25)

    class Root(frame.module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lm_head = Inner(), Times(1.0, V)

        def forward(self, x: Any) -> Any:
            h = note("model.embed_tokens", self.model.embed_tokens(x))
            rows = self.model.embed_tokens_per_layer(x[..., :1] + frame.array(np.arange(float(N * P))))
            note("model.embed_tokens_per_layer", rows.reshape((B, x.shape[1], N, P)))
            for layer in self.model.layers:
                h, _ = layer(h)
            raw = note("logits.raw", self.lm_head(note("model.norm", self.model.norm(h))))
            return SimpleNamespace(logits=note("logits", raw * 1.0))

        __call__ = forward if frame.gives_probs is False else frame.module.__call__

    return Root(), notes


def hidden(start: int, stop: int) -> Any:
    return np.random.default_rng(7).standard_normal((B, L, D))[:, start:stop]


def calls(steps: tuple[int, ...]) -> Iterator[Any]:
    start = 0
    for step in steps:
        yield hidden(start, start + step)
        start += step


def recorded(frame: Framework, steps: tuple[int, ...], *, flat: bool, want: Any = None) -> tuple[Any, Any]:
    """The taps that were read, and those that the toy noted, all calls joined along L."""
    root, notes = toy(frame, flat=flat)
    with frame.taps(root, CONFIG, want) as records:
        for x in calls(steps):
            root(frame.array(x))
    root(frame.array(hidden(0, 1)))  # nothing listens any more
    mine = {tap: values[: len(steps)] for tap, values in notes.items()}
    joined = {
        tap: np.concatenate(values, 2 if tap.endswith("_norm") and "self_attn" in tap else 1)
        for tap, values in mine.items()
        if len(steps) == 1 or not tap.endswith("probs")
    }
    if not frame.gives_probs:
        joined = {tap: value for tap, value in joined.items() if not tap.endswith("probs")}
    if not frame.gives_logits:
        del joined["logits"]
    return {tap: frame.numpy(value) for tap, value in records.joined().items()}, joined


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("steps", [(L,), STEPS], ids=["one call", "two calls"])
def test_every_tap_that_modules_show_is_read_in_its_own_layout(
    framework: Framework, steps: tuple[int, ...], flat: bool
) -> None:
    read, noted = recorded(framework, steps, flat=flat)
    assert set(read) == set(noted)
    assert len(noted) > 40
    for tap, value in noted.items():
        assert read[tap].shape == value.shape, tap
        np.testing.assert_array_equal(read[tap], value, err_msg=tap)


def test_only_what_is_wanted_is_read(framework: Framework) -> None:
    want = {"model.layers.1.self_attn.q_norm", "model.layers.0.output", "model.layers.0.self_attn.q_rope", "y"}
    read, _ = recorded(framework, (L,), flat=True, want=want)
    assert set(read) == {"model.layers.1.self_attn.q_norm", "model.layers.0.output"}


def test_a_tree_under_another_prefix_is_read(framework: Framework) -> None:
    root, notes = toy(framework, flat=True)
    outer = framework.module()
    outer.language_model = root.model
    with framework.taps(outer, CONFIG, None, prefix="language_model.") as records:
        root(framework.array(hidden(0, L)))
    read = records.joined()
    assert "model.layers.1.output" in read
    np.testing.assert_array_equal(framework.numpy(read["model.norm"]), notes["model.norm"][0])
    assert "logits.raw" not in read  # the head lies outside


def test_every_read_is_of_a_known_tap() -> None:
    found = [read.tap for read in reads(CONFIG, None, "model.")]
    assert len(found) == len(set(found))
    assert {"model.layers.0.residual_1", "model.layers.1.mlp.act", "logits"} <= set(found)
    assert not [tap for tap in found if tap.endswith(("_rope", "combine", "model.ple"))]  # calls, which no module shows


@pytest.mark.parametrize("flat", [True, False])
def test_the_tree_goes_on_with_what_is_given(framework: Framework, flat: bool) -> None:
    """An output, one in another layout, one of B*L rows where tokens are flat, and an argument that also goes past."""
    rng = np.random.default_rng(3)
    prefix = "model.layers.0."
    shapes = {
        f"{prefix}input_layernorm": (B, L, D),
        f"{prefix}self_attn.q_norm": (B, H, L, E),
        f"{prefix}self_attn.v_norm": (B, K, L, E),
        f"{prefix}experts": (B, L, D),
        f"{prefix}mlp.down_proj": (B, L, D),
        f"{prefix}residual_1": (B, L, D),
        f"{prefix}post_feedforward_layernorm": (B, L, D),
    }
    given = {tap: rng.standard_normal(shape) for tap, shape in shapes.items()}
    root, _ = toy(framework, flat=flat)
    with framework.taps(root, CONFIG, None, given={tap: framework.array(x) for tap, x in given.items()}) as records:
        root(framework.array(hidden(0, L)))
    read = {tap: framework.numpy(x) for tap, x in records.joined().items()}
    assert records.replaced == set(given)
    q, v = (given[f"{prefix}self_attn.{name}"].swapaxes(1, 2) for name in ("q_norm", "v_norm"))  # B L heads E
    expected = {
        f"{prefix}self_attn.k_norm": 3.0 * given[f"{prefix}input_layernorm"][:, None, :, :E],
        f"{prefix}self_attn.context": q.reshape(B, L, H * E) + v[:, :, 0, :1],
        f"{prefix}pre_feedforward_layernorm": 1.3 * given[f"{prefix}residual_1"],
        f"{prefix}post_feedforward_layernorm": 1.4 * (given[f"{prefix}mlp.down_proj"] + given[f"{prefix}experts"]),
        f"{prefix}residual_2": given[f"{prefix}residual_1"] + given[f"{prefix}post_feedforward_layernorm"],
    }
    for tap, value in expected.items():
        np.testing.assert_allclose(read[tap], value, rtol=1e-5, atol=1e-6, err_msg=tap)
