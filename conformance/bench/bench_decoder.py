"""mlx_impl on the miniatures: time of a prefill and of a decode step, and the memory that MLX had at its peak.

Miniatures show what the code around the products costs, no more; figures of CPUs are not comparable with Metal's.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import mlx_impl
from mlx_impl import Decoder
from reference.format import Fixtures

MODELS = ("e2b-mini", "26b-a4b-mini", "31b-mini")
DEPTH = 512


@pytest.fixture(params=MODELS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """A miniature in float32."""
    return mlx_impl.load(Fixtures().model_dir(request.param))


def _ids(count: int) -> mx.array:
    return (mx.arange(count) % 255 + 1)[None]


def _measure(benchmark: BenchmarkFixture, run: Callable[[], object]) -> None:
    run()  # kernels are compiled at their first use
    mx.reset_peak_memory()
    benchmark(run)
    benchmark.extra_info["device"] = str(mx.default_device())
    benchmark.extra_info["peak_bytes"] = mx.get_peak_memory()


def bench_prefill(benchmark: BenchmarkFixture, decoder: Decoder) -> None:
    """DEPTH tokens in one pass with a fresh cache."""
    ids = _ids(DEPTH)
    _measure(benchmark, lambda: mx.eval(decoder(ids, caches=decoder.make_caches())))


def bench_decode(benchmark: BenchmarkFixture, decoder: Decoder) -> None:
    """One token more, behind DEPTH or more of them."""
    caches = decoder.make_caches()
    mx.eval(decoder(_ids(DEPTH), caches=caches))
    _measure(benchmark, lambda: mx.eval(decoder(_ids(1), caches=caches)))
