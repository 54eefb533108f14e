"""The oracle's decoder: every tap from its parents by naive code, every plan equal, every arithmetic its own dtype."""

from collections.abc import Mapping
from functools import cache

import ml_dtypes
import numpy as np
import pytest

from gemma4_contract.tensors import Array
from reference.cases.forward import golden_ids, padded_inputs
from reference.export.checkpoint import model_weights
from reference.models import MODELS, Model
from reference.oracle import plans
from reference.oracle.arithmetic import BF16, BF16_EVERY_OP, F16, F32, F64, Arithmetic
from reference.oracle.decoder import Decoder
from reference.oracle.summation import ORDERS
from reference.taps import model_taps
from tests.support import naive

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def positions_of(ids: Array) -> Array:
    return np.tile(np.arange(ids.shape[1], dtype=np.int32), (len(ids), 1))


@cache
def decoder(model_id: str, ar: Arithmetic = F64) -> Decoder:
    return Decoder(MODELS[model_id].config, model_weights(MODELS[model_id]), ar)


@cache
def forward(model_id: str, ar: Arithmetic = F64) -> Mapping[str, Array]:
    """All taps of a model's golden ids, 19 tokens with a window of 8, in one call without a cache."""
    ids = golden_ids(MODELS[model_id], 0)
    return plans.run(decoder(model_id, ar), ids, positions_of(ids))


def distance(got: Array, wanted: Array) -> float:
    """Largest error relative to the largest value; NaN if any value is NaN."""
    assert got.shape == wanted.shape
    error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    return float(error.max() / np.abs(wanted.astype(np.float64)).max())


@each_model
def test_every_tap_is_what_naive_code_makes_of_its_parents(model: Model) -> None:
    ids = golden_ids(model, 0)[:, :11]  # past the window of 8
    taps = plans.run(decoder(model.id), ids, positions_of(ids))
    computed = naive.Naive(model.text_config, model_weights(model), ids)
    for tap in model_taps(model.config):
        expected = computed.tap(tap.name, [taps[parent] for parent in tap.parents])
        assert distance(taps[tap.name], expected) < 1e-12, tap.name


@pytest.mark.parametrize("window_at", [7, 8, 9])
def test_first_token_leaves_the_window_exactly_at_its_width(window_at: int) -> None:
    ids = golden_ids(MODELS["31b-mini"], 0)[:, : window_at + 1]
    other = ids.copy()
    other[0, 0] = ids[0, 0] % 300 + 1
    name = "model.layers.0.self_attn.context"
    here, there = (
        plans.run(decoder("31b-mini"), tokens, positions_of(tokens), want={name})[name][0, window_at]
        for tokens in (ids, other)
    )
    assert np.array_equal(here, there) == (window_at >= 8)


PLANS: dict[str, list[int]] = {
    "one shot": [19],
    "chunks of 5": [5, 5, 5, 4],
    "chunks of 11": [11, 8],
    "tokens": [1] * 19,
    "chunk, token, chunk": [8, 1, 10],
}


@each_model
def test_all_plans_agree_past_the_window(model: Model) -> None:
    ids, golden = golden_ids(model, 0), forward(model.id)
    for name, steps in PLANS.items():
        taps = plans.run(decoder(model.id), ids, positions_of(ids), steps=steps)
        over_keys = {tap.name for tap in model_taps(model.config) if "S" in tap.axes}
        assert taps.keys() == golden.keys() - (over_keys if len(steps) > 1 else set()), name
        for tap, value in taps.items():
            assert distance(value, golden[tap]) < 1e-12, (name, tap)


@each_model
@pytest.mark.parametrize("steps", [None, [15, 1, 1, 1, 1], [8, 1, 10]], ids=["no cache", "decode", "mixed"])
def test_left_padded_rows_equal_the_unpadded_run(model: Model, steps: list[int] | None) -> None:
    pads = [0, 3, 12]
    inputs, golden = padded_inputs(golden_ids(model, 0), pads), forward(model.id)
    taps = plans.run(decoder(model.id), inputs["ids"], inputs["positions"], valid=inputs["valid"], steps=steps)
    assert all(np.isfinite(value).all() for value in taps.values())  # pads too: a fully masked row is no NaN
    for tap in model_taps(model.config):
        if "S" in tap.axes:
            continue
        axis = tap.axes.index("L")
        whole, real = np.moveaxis(taps[tap.name], axis, 1), np.moveaxis(golden[tap.name], axis, 1)
        for row, pad in enumerate(pads):
            assert distance(whole[row, pad:], real[0, : 19 - pad]) < 1e-12, (tap.name, row)


def test_steps_that_do_not_add_up_are_refused() -> None:
    ids = golden_ids(MODELS["trap-eps"], 0)
    with pytest.raises(ValueError, match=r"the steps \[5, 5\] add up to 10 tokens, the case has 19"):
        plans.run(decoder("trap-eps"), ids, positions_of(ids), steps=[5, 5])


def test_only_wanted_taps_are_kept() -> None:
    ids = golden_ids(MODELS["trap-eps"], 0)
    kept = plans.run(decoder("trap-eps"), ids, positions_of(ids), steps=[10, 9], want={"logits", "model.norm"})
    assert kept.keys() == {"logits", "model.norm"}
    assert kept["logits"].shape == (1, 19, 128)


def test_weights_of_shared_layers_keys_and_values_are_ignored() -> None:
    model = MODELS["e4b-mini"]
    ids, built = golden_ids(model, 0), model_weights(model)
    kinds, own = ("k_proj", "v_proj", "k_norm"), 6
    shared = [f"model.layers.{i}.self_attn.{kind}.weight" for i in range(own, 12) for kind in kinds]
    for weights in (
        {name: value for name, value in built.items() if name not in shared},
        built | {name: np.full(built[name].shape, 7.0) for name in shared},
    ):
        taps = plans.run(Decoder(model.config, weights), ids, positions_of(ids))
        assert all(np.array_equal(taps[name], value) for name, value in forward(model.id).items())
    # The negative control: a donor's own weights do count.
    donor = "model.layers.4.self_attn.v_proj.weight"
    taps = plans.run(Decoder(model.config, built | {donor: -built[donor]}), ids, positions_of(ids))
    assert distance(taps["model.layers.6.self_attn.context"], forward(model.id)["model.layers.6.self_attn.context"]) > 1


def test_double_wide_mlp_is_as_wide_as_said() -> None:
    widths = [forward("e2b-mini")[f"model.layers.{layer}.mlp.act"].shape[-1] for layer in range(10)]
    assert widths == [56] * 5 + [112] * 5


def test_some_logits_pass_the_cap_and_none_is_left_there() -> None:
    for model_id, cap in {"31b-mini": 30.0, "trap-softcap": 12.0}.items():
        taps = forward(model_id)
        assert np.abs(taps["logits.raw"]).max() > 1.5 * cap
        assert np.abs(taps["logits"]).max() < cap


# --- arithmetic

DTYPES = {
    F64: np.float64,
    F32: np.float32,
    BF16: ml_dtypes.bfloat16,
    F16: np.float16,
    BF16_EVERY_OP: ml_dtypes.bfloat16,
}


@pytest.mark.parametrize("ar", DTYPES, ids=lambda ar: ar.name)
@pytest.mark.parametrize("model_id", ["e2b-mini", "12b-mini", "26b-a4b-mini"])
def test_every_tap_has_the_arithmetics_dtype(model_id: str, ar: Arithmetic) -> None:
    taps = forward(model_id, ar)
    assert {name: value.dtype for name, value in taps.items()} == dict.fromkeys(taps, np.dtype(DTYPES[ar]))
    assert all(np.isfinite(value.astype(np.float64)).all() for value in taps.values())


def test_lower_arithmetics_err_by_their_own_precision() -> None:
    name = "model.layers.0.output"
    golden = forward("31b-mini")[name]
    errors = {ar: distance(forward("31b-mini", ar)[name], golden) for ar in DTYPES}
    bounds = {F64: (0, 0), F32: (1e-8, 1e-6), BF16: (1e-3, 2e-2), F16: (1e-4, 3e-3), BF16_EVERY_OP: (1e-3, 3e-2)}
    assert all(low <= errors[ar] <= high for ar, (low, high) in bounds.items()), errors
    assert not np.array_equal(forward("31b-mini", BF16)[name], forward("31b-mini", BF16_EVERY_OP)[name])


def test_four_orders_of_summation_differ_in_the_last_bits_alone() -> None:
    ids = golden_ids(MODELS["e2b-mini"], 0)
    logits = {}
    for order in ORDERS:
        ar = Arithmetic(name=order, dtype=F32.dtype, wide=F32.wide, accumulate=F32.accumulate, order=order)
        logits[order] = plans.run(decoder("e2b-mini", ar), ids, positions_of(ids), want={"logits"})["logits"]
    assert len({value.tobytes() for value in logits.values()}) == 4
    golden = forward("e2b-mini")["logits"]
    assert all(distance(value, golden) < 1e-5 for value in logits.values())
