"""Random configurations and plans: mlx_impl against the oracle, and the oracle against transformers.

`pytest tests/laws` runs the profile `ci`: few examples, always the same. `pytest tests/laws --hypothesis-profile night`
runs 1000 new ones; add `--hypothesis-seed=2026` to draw the same again, and `--hypothesis-show-statistics` for the
share of examples that were discarded or needed the wider floors. Both profiles are in tests/conftest.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from conformance.judging.compare import measure
from reference.config import TextConfig
from tests.support.laws.budget import share
from tests.support.laws.configurations import WIDTH_SPELLINGS, Example, examples, weights_of
from tests.support.laws.judging import discard_narrow, divergence, explain
from tests.support.laws.yardstick import POLICY, Divergence, golden_of


@given(examples())
def test_every_configuration_is_valid_and_survives_json(example: Example) -> None:
    again = Example.from_json(example.as_json())
    assert again == example
    assert TextConfig.from_dict(again.text_config) == example.config


@pytest.mark.slow
@given(examples())
def test_mlx_impl_agrees_with_the_oracle(example: Example) -> None:
    discard_narrow(example)
    found = divergence(example)
    if found is not None:
        pytest.fail(explain(example, found))


def within_transformers(example: Example) -> Example:
    """What transformers 5.23.0 can run: layers that share have PLE, and a window has two keys at least.

    Otherwise it slices a PLE that is None, and keeps keys[-w + 1:], which are all of them where w is 1.
    """
    change = {"sliding_window": max(2, example.config.sliding_window)}
    if example.config.num_kv_shared_layers:
        change["hidden_size_per_layer_input"] = max(1, example.config.hidden_size_per_layer_input)
    return replace(example, text_config={**example.text_config, **change})


@share(4, least=10)
@given(examples().map(within_transformers))
def test_the_oracle_agrees_with_transformers(example: Example) -> None:
    pytest.importorskip("torch")
    from reference.transformers_model import TransformersModel

    discard_narrow(example)
    ours, theirs = WIDTH_SPELLINGS
    text_config = dict(example.text_config)
    text_config[ours] = text_config.get(ours) or text_config.pop(theirs, None)  # transformers knows one spelling
    weights, inputs, plan = weights_of(example.text_config), example.inputs, example.plan
    model = TransformersModel(text_config, weights, dtype="float64", attention="eager", lifted=True)
    answers = model.run(inputs["ids"], positions=inputs["positions"], steps=plan.steps, left_pad=plan.left_pad)
    golden, valid = golden_of(example)
    compared = [name for name in golden if name in answers]
    assert all(name.endswith((".k_read", ".v_read", ".probs")) for name in golden.keys() - answers.keys())
    for name in compared:
        error = measure(answers[name], golden[name], valid[name])
        if not error.rms <= POLICY.agreement:
            fault = Divergence(tap=name, got=f"rms {error.rms:.2e}", allowed=f"at most {POLICY.agreement:.0e}")
            pytest.fail(explain(example, fault))
