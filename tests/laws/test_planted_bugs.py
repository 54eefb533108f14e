"""The strategies find what they are for: three planted mistakes, each shrunk to the least that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import find, settings

from gemma4_contract.recording import Recording
from mlx_impl.model import attention, config, norms
from reference.family import FULL, SLIDING
from tests.support.laws.configurations import Example, examples
from tests.support.laws.judging import divergence
from tests.support.laws.yardstick import Divergence, golden_of, is_narrow

pytestmark = pytest.mark.slow

WITHIN = 200
"""How many random examples a planted mistake may survive."""


def smallest_failing() -> tuple[Example, Divergence]:
    """The least example, of those that a search finds, on which mlx_impl and the oracle disagree."""

    def fails(example: Example) -> bool:
        return divergence(example) is not None and not is_narrow(example.config, *golden_of(example))

    example = find(examples(), fails, settings=settings(max_examples=WITHIN, derandomize=True))
    found = divergence(example)
    assert found is not None
    return example, found


def test_a_window_off_by_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention.attention_mask

    def wrong(q: mx.array, k: mx.array, valid: mx.array | None, window: int | None) -> mx.array:
        return right(q, k, valid, None if window is None else window + 1)

    monkeypatch.setattr(attention, "attention_mask", wrong)
    example, found = smallest_failing()
    window = example.text_config["sliding_window"]
    assert example.plan.length == window + 1 == 2
    assert example.text_config["layer_types"] == [SLIDING, FULL]
    assert found.tap == "model.layers.0.self_attn.probs"


def test_a_wrong_donor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_of_its_type(self: config.Config, layer: int) -> int:
        return self.layer_types.index(self.layer_types[layer]) if self.is_kv_shared(layer) else layer

    monkeypatch.setattr(config.Config, "kv_donor", first_of_its_type)
    example, found = smallest_failing()
    assert example.text_config["num_kv_shared_layers"] == 1
    assert example.text_config["layer_types"] == [FULL, FULL, FULL]
    assert found.tap.startswith("model.layers.2.self_attn.")


def test_a_value_from_the_normed_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention.Attention, "keys_values", value_from_normed_key(attention.Attention.keys_values))
    example, found = smallest_failing()
    assert example.text_config["attention_k_eq_v"]
    assert example.text_config["layer_types"] == [FULL]
    assert example.plan.length == 1
    assert found.tap == "model.layers.0.self_attn.v_norm"


def value_from_normed_key(right: Callable[..., Any]) -> Callable[..., Any]:
    """`Attention.keys_values` in which K = V takes the key after its norm."""

    def wrong(self: attention.Attention, x: mx.array, positions: mx.array, inv_freq: mx.array, tap: Any) -> Any:
        seen: dict[str, mx.array] = {}
        keys, values = right(self, x, positions, inv_freq, Recording(taps=seen))
        if self.config.k_eq_v(self.layer):
            values = seen["self_attn.v_norm"] = norms.rms_norm(seen["self_attn.k_norm"], None, self.config.rms_norm_eps)
        for name, value in seen.items():
            tap(name, value)
        return keys, values

    return wrong
