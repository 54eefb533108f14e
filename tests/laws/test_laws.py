"""Laws of whole models that need no golden, on random configurations: mlx_impl in float32, the oracle in float64.

Equality is bit for bit where both sides do the same sums, and otherwise within what rounding costs on the example.
Experts are computed on the tokens that chose them, in batches that depend on the other tokens: hence their rounding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gemma4_contract.tensors import Array
from tests.support.laws.budget import share
from tests.support.laws.configurations import Example, examples, token_ids, weights_of
from tests.support.laws.implementations import Implementation, assert_close, assert_equal, both, rows_of, unpadded
from tests.support.laws.judging import discard_narrow

few = share(8)


def ids_of(example: Example) -> Array:
    """The example's tokens without any pads: [1, L]."""
    return token_ids(example.text_config, example.plan.length, example.plan.seed)


def with_other_tokens(example: Example, start: int) -> Array:
    """The example's tokens [1, L], every one from `start` on replaced by another."""
    config, ids = example.text_config, ids_of(example)
    rows = min(config["vocab_size"], config["vocab_size_per_layer_input"])  # at least 4: ids 1 to 3
    ids[:, start:] = ids[:, start:] % (rows - 1) + 1
    return ids


@both
@few
@given(examples(padded=False), st.data())
def test_causality(implementation: Implementation, example: Example, data: st.DataObject) -> None:
    """Other tokens from a position on change nothing before it."""
    start = data.draw(st.integers(0, example.plan.length - 1))
    discard_narrow(example)
    model, ids, others = implementation.model(example), ids_of(example), with_other_tokens(example, start)
    got, want = model(unpadded(others), example.plan.steps), model(unpadded(ids), example.plan.steps)
    before = slice(0, start)
    assert not np.array_equal(got["model.embed_tokens"][:, start], want["model.embed_tokens"][:, start])
    if example.config.enable_moe_block:
        got, want = rows_of(example, got, before), rows_of(example, want, before)
        assert_close(got, want, example, unpadded(ids), implementation.ar)
    else:
        assert_equal(rows_of(example, got, before), rows_of(example, want, before))


@both
@few
@given(examples(cached=True))
def test_chunk_invariance(implementation: Implementation, example: Example) -> None:
    """Any steps give what one call without a cache gives, padded batches included."""
    discard_narrow(example)
    model, inputs = implementation.model(example), example.inputs
    got, want = (rows_of(example, model(inputs, steps), slice(None)) for steps in (example.plan.steps, None))
    assert_close(got, want, example, inputs, implementation.ar)


@both
@few
@given(examples(padded=False), st.data())
def test_prefill_and_decode_equal_prefill(
    implementation: Implementation, example: Example, data: st.DataObject
) -> None:
    """A prompt in one call and the rest token by token give the logits of one call."""
    length = example.plan.length
    prompt = data.draw(st.integers(1, length))
    discard_narrow(example)
    model, inputs = implementation.model(example), example.inputs
    got, want = model(inputs, [prompt] + [1] * (length - prompt)), model(inputs, [length])
    assert_close({"logits": got["logits"]}, {"logits": want["logits"]}, example, inputs, implementation.ar)


@both
@few
@given(examples(padded=False), st.integers(1, 3))
def test_batch_rows_equal_single_rows(implementation: Implementation, example: Example, batch: int) -> None:
    """Every row of a batch is what it would be alone."""
    rows = [example.with_seed(example.plan.seed + row) for row in range(batch)]
    for row in rows:
        discard_narrow(row)
    model, steps = implementation.model(example), example.plan.steps
    together = model(unpadded(np.concatenate([ids_of(row) for row in rows])), steps)
    for index, row in enumerate(rows):
        alone = rows_of(example, model(row.inputs, steps), slice(None))
        cut = rows_of(example, together, slice(None), slice(index, index + 1))
        assert_close(cut, alone, row, row.inputs, implementation.ar)


@both
@few
@given(examples(padded=True))
def test_left_padding_changes_nothing(implementation: Implementation, example: Example) -> None:
    """Every row after its pads is what it would be without them, whatever the steps."""
    single = replace(example, plan=replace(example.plan, left_pad=None))
    discard_narrow(single)
    model, inputs = implementation.model(example), single.inputs
    want = model(inputs, None)
    got = model(example.inputs, example.plan.steps)
    for row, pad in enumerate(example.plan.left_pad or ()):
        real = slice(0, example.plan.length - pad)
        after = rows_of(example, got, slice(pad, None), slice(row, row + 1))
        assert_close(after, rows_of(example, want, real), single, inputs, implementation.ar)


@both
@few
@given(examples(padded=False), st.integers(1, 300))
def test_only_distances_count(implementation: Implementation, example: Example, shift: int) -> None:
    """All positions moved by a constant change nothing but the rotated queries and keys themselves."""
    discard_narrow(example)
    model, steps = implementation.model(example), example.plan.steps
    moved = unpadded(ids_of(example), shift)
    got, want = (
        {name: x for name, x in model(inputs, steps).items() if not name.endswith(("q_rope", "k_rope", "k_read"))}
        for inputs in (moved, example.inputs)
    )
    assert_close(got, want, example, moved, implementation.ar)


@both
@few
@given(examples(shared=True))
def test_shared_layers_ignore_keys_and_values_of_their_own(implementation: Implementation, example: Example) -> None:
    """A checkpoint's redundant weights may hold NaN: the answers are those of a checkpoint without them."""
    weights = weights_of(example.text_config)
    redundant = weights_of(example.text_config, redundant_shared_kv=True)
    poison = {name: np.full_like(x, np.nan) for name, x in redundant.items() if name not in weights}
    assert any("k_proj" in name for name in poison)
    inputs, steps = example.inputs, example.plan.steps
    want = implementation.model(example, weights)(inputs, steps)
    assert_equal(implementation.model(example, weights | poison)(inputs, steps), want)


@both
@few
@given(examples(), st.data())
def test_the_layer_scalar_is_linear(implementation: Implementation, example: Example, data: st.DataObject) -> None:
    """Twice the scalar is twice the layer's output, exactly; minus the scalar is minus the output."""
    layer = data.draw(st.integers(0, example.text_config["num_hidden_layers"] - 1))
    weights, inputs, steps = weights_of(example.text_config), example.inputs, example.plan.steps
    name, output = f"model.layers.{layer}.layer_scalar", f"model.layers.{layer}.output"
    want = implementation.model(example, weights)(inputs, steps)
    names = list(want)
    for factor in (2.0, -1.0):
        got = implementation.model(example, weights | {name: weights[name] * factor})(inputs, steps)
        before = names[: names.index(output)]
        assert_equal({tap: got[tap] for tap in before}, {tap: want[tap] for tap in before})
        np.testing.assert_array_equal(got[output], factor * want[output])
