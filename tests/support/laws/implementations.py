"""The two implementations that the laws test, with one interface: mlx_impl in float32, the oracle in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from conformance.judging.compare import Error, measure
from conformance.judging.tolerance import Tolerance
from gemma4_contract.tensors import Array
from reference.oracle import plans
from reference.oracle.arithmetic import F32, F64, Arithmetic
from reference.oracle.decoder import Decoder
from reference.taps import model_taps
from tests.support.laws import mlx_models
from tests.support.laws.configurations import Example, weights_of
from tests.support.laws.yardstick import Taps, Yardstick, yardstick_of

Model = Callable[[Mapping[str, Array], Sequence[int] | None], dict[str, Array]]
"""A model with its weights: inputs (ids, positions, perhaps valid) and steps -> every tap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """How to build a model of an example, and the arithmetic that it claims."""

    build: Callable[[Example, Mapping[str, Array]], Model]
    ar: Arithmetic

    def model(self, example: Example, weights: Mapping[str, Array] | None = None) -> Model:
        """The example's model, with its weights by rule unless others are given."""
        return self.build(example, weights_of(example.text_config) if weights is None else weights)


def _mlx_impl(example: Example, weights: Mapping[str, Array]) -> Model:
    decoder = mlx_models.load(example.text_config, weights)
    return lambda inputs, steps: mlx_models.run_steps(decoder, example, inputs, steps)


def _oracle(example: Example, weights: Mapping[str, Array]) -> Model:
    decoder = Decoder(example.config, weights)
    return lambda inputs, steps: plans.run(
        decoder, inputs["ids"], inputs["positions"], valid=inputs.get("valid"), steps=steps
    )


IMPLEMENTATIONS = {
    "mlx_impl": Implementation(build=_mlx_impl, ar=F32),
    "oracle": Implementation(build=_oracle, ar=F64),
}

both = pytest.mark.parametrize("implementation", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)


def unpadded(ids: Array, start: int = 0) -> dict[str, Array]:
    """The inputs of one batch without pads: ids [B, L], positions from `start` on."""
    positions = np.arange(start, start + ids.shape[1], dtype=np.int32)
    return {"ids": ids, "positions": np.broadcast_to(positions, ids.shape).copy()}


def rows_of(example: Example, taps: Taps, rows: slice, batch: slice = slice(None)) -> dict[str, Array]:
    """Some rows of every tap along L, of some of the batch; those with an axis S are left out."""
    cut = {}
    for tap in model_taps(example.config):
        if tap.name in taps and "S" not in tap.axes:
            index = [slice(None)] * len(tap.axes)
            index[0], index[tap.axes.index("L")] = batch, rows
            cut[tap.name] = taps[tap.name][tuple(index)]
    return cut


def assert_equal(got: Taps, want: Taps) -> None:
    """Every tap is equal bit for bit."""
    assert got.keys() == want.keys()
    for name, expected in want.items():
        np.testing.assert_array_equal(got[name], expected, err_msg=name)


def assert_close(got: Taps, want: Taps, example: Example, inputs: Taps, ar: Arithmetic) -> None:
    """Every tap is equal within what rounding costs on these inputs.

    Two honest answers are each within the tolerance of the truth, so within twice the tolerance of each other. What
    rounding costs in float64 is what it costs in float32, times 2^-29: the angles of RoPE differ in no order of sums.
    """
    assert got.keys() == want.keys()
    names = [name for name, expected in want.items() if not np.array_equal(got[name], expected)]
    times = 2 * float(np.finfo(ar.dtype).eps / np.finfo(np.float32).eps)
    for more in (False, True):  # Monte Carlo only where the orders of summation do not do
        if not names:
            return
        yard = yardstick_of(example, inputs, more=more)
        errors = {name: measure(got[name], want[name], _seen(yard, name, want[name])) for name in names}
        names = [name for name in names if not _is_within(errors[name], yard.allowed[name], times)]
    if names:
        fault = f"{names[0]}: got {errors[names[0]]}, expected at most {times:.1e} x {yard.allowed[names[0]]}"
        pytest.fail(f"{fault}\n{example.as_json()}")


def _seen(yard: Yardstick, name: str, want: Array) -> Array | None:
    """What is no pad, where the whole tap of a batch is compared."""
    return yard.valid[name] if yard.valid[name].shape == want.shape else None


def _is_within(error: Error, limit: Tolerance, times: float) -> bool:
    return error.rms <= times * limit.rms and error.max <= times * limit.max
