"""The probe tells low-precision products from right ones, and from mistakes that are no matter of precision."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.adapters.base import Request
from conformance.judging.probe import products_error
from gemma4_contract import Fixtures
from gemma4_contract.tensors import Array
from tests.support.fakes import Port, Taps, parrot, raiser, skipper
from tests.support.installed import FIXTURES
from tests.support.trees import small_tree

LIMIT = FIXTURES.policy.low_precision_products


def chopped(x: Array, bits: int) -> Array:
    """Float32 with so many fraction bits left, rounded to nearest."""
    drop = 23 - bits
    whole = x.astype(np.float32).view(np.uint32) + np.uint32(1 << (drop - 1))
    return (whole & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)).view(np.float32)


def products_of(bits: int) -> Port:
    def answer(request: Request) -> Taps:
        x, weight = (chopped(request.inputs[name], bits) for name in ("x", "weight"))
        return {"y": x @ weight.T}

    return Port(answer)


def test_float32_products_are_told_from_tf32_and_bf16_ones() -> None:
    honest = products_error(FIXTURES, parrot(FIXTURES), "f32")
    tf32, bf16 = (products_error(FIXTURES, products_of(bits), "f32") for bits in (10, 7))
    assert honest == 0.0
    assert tf32 is not None
    assert bf16 is not None
    assert LIMIT < 1e-4 < tf32 < 1e-3 < bf16 < 1e-2


def test_plain_numpy_products_are_no_low_precision_ones() -> None:
    port = Port(lambda request: {"y": request.inputs["x"] @ request.inputs["weight"].T})
    error = products_error(FIXTURES, port, "f32")
    assert error is not None
    assert 0 < error < LIMIT


@pytest.mark.parametrize(
    "port",
    [
        skipper(),
        raiser(ValueError("broken")),
        parrot(FIXTURES, lambda _: {}),
        parrot(FIXTURES, lambda taps: {"y": taps["y"][1:]}),
        parrot(FIXTURES, lambda taps: {"y": taps["y"] * 0}),
        parrot(FIXTURES, lambda taps: {"y": taps["y"] * np.nan}),
    ],
    ids=["skips", "raises", "no y", "shape", "zeros", "nan"],
)
def test_what_is_no_product_is_left_to_the_case(port: Port) -> None:
    assert products_error(FIXTURES, port, "f32") is None
    assert len(port.asked) == 1


def test_low_precision_profiles_are_not_probed() -> None:
    port = parrot(FIXTURES)
    assert [products_error(FIXTURES, port, profile) for profile in ("bf16", "f16")] == [None, None]
    assert port.asked == []
    assert products_error(FIXTURES, port, "f64") == 0.0


def test_fixtures_without_the_case_are_not_probed(tmp_path_factory: pytest.TempPathFactory) -> None:
    fixtures = Fixtures(small_tree(tmp_path_factory.mktemp("probe") / "fixtures"))
    assert products_error(fixtures, parrot(fixtures), "f32") is None
