"""One function at a time can be replaced from outside, and the forward pass notices.

Which also shows that the comparisons of test_mlx_others could have failed: each wrong formula here moves the logits by
far more than their tolerance.
"""

import importlib
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from tests.support import gemma4_small as g

Wrong = Callable[[Callable[..., Any]], Callable[..., Any]]


def after(change: Callable[[Any], Any]) -> Wrong:
    """The original function with its result changed."""
    return lambda original: lambda *args, **kwargs: change(original(*args, **kwargs))


def window_off_by_one(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda q, k, valid, window: original(q, k, valid, None if window is None else window + 1)


def contiguous_prefix(original: Callable[..., Any]) -> Callable[..., Any]:
    def swapped(x: mx.array, positions: mx.array, inv_freq: mx.array) -> mx.array:
        pairs = x.reshape(*x.shape[:-1], -1, 2).swapaxes(-1, -2).reshape(x.shape)
        turned: mx.array = original(pairs, positions, inv_freq)
        return turned

    return swapped


WRONG: dict[str, tuple[str, str, str, Wrong]] = {
    "no softcap": ("e2b", "decoder", "softcap", lambda _: lambda x, _cap: x),
    "norm weight plus one": (
        "e2b",
        "norms",
        "rms_norm",
        lambda f: lambda x, w, eps: f(x, w if w is None else w + 1, eps),
    ),
    "rope pairs neighbours": ("31b", "rope", "apply_rope", contiguous_prefix),
    "frequencies halved": ("31b", "rope", "inverse_frequencies", after(lambda f: f / 2)),
    "embedding unscaled": ("31b", "embedding", "scaled_embedding", lambda _: lambda ids, table: table(ids)),
    "embedding scale of one": ("31b", "embedding", "embedding_scale", after(lambda s: s / s)),
    "PLE slices reversed": ("e2b", "ple", "per_layer_inputs", after(lambda x: x[:, :, ::-1])),
    "PLE branch dropped": ("e2b", "ple", "gated", after(mx.zeros_like)),
    "window off by one": ("e2b", "attention", "attention_mask", window_off_by_one),
    "scale not one": ("e2b", "attention", "attention_probs", lambda f: lambda q, k, mask: f(q * 0.5, k, mask)),
    "softmax unmasked": ("31b", "attention", "masked_softmax", lambda f: lambda s, m: f(s, mx.ones_like(m))),
    "silu": ("31b", "mlp", "gelu_tanh", lambda _: lambda x: x * mx.sigmoid(x)),
    "MLP doubled before its sum": ("26b-a4b", "mlp", "gated_mlp", after(lambda x: x * x)),
    "experts reversed": ("26b-a4b", "moe", "route", after(lambda r: (r[0], r[1][..., ::-1]))),
    "up before gate": (
        "26b-a4b",
        "moe",
        "expert_mlp",
        lambda f: lambda x, w, down: f(x, mx.concatenate([*mx.split(w, 2)][::-1]), down),
    ),
    "experts dropped": ("26b-a4b", "moe", "apply_experts", after(mx.zeros_like)),
    "projection negated": ("31b", "params", "project", after(lambda x: -x)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_function_moves_the_logits(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, module_name, function, wrong = WRONG[what]
    model, ids = g.small(kind), mx.array(g.ids(1, 21))
    right = model(ids)
    mx.eval(right)
    module = importlib.import_module(f"mlx_impl.model.{module_name}")
    monkeypatch.setattr(module, function, wrong(getattr(module, function)))
    error = g.rel_rms(model(ids), right)
    assert not error < 1e-3
