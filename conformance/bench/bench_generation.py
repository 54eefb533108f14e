"""mlx_impl beside mlx-lm on one checkpoint: load time, time to first token, time per token, memory.

Contenders are timed in turns and told one after the other; an implementation that does not conform gets no figure.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conformance.bench.clock import CLOCK
from conformance.bench.contenders import CONTENDERS, Contender
from conformance.bench.prompt import prompt

ROUNDS, TOKENS = 5, 64
each_contender = pytest.mark.parametrize("name", CONTENDERS)

Times = dict[str, list[float]]


def in_turns(contenders: dict[str, Contender], measure: Callable[[Contender], Sequence[float]]) -> Times:
    """A, B, C, A, B, C, ... after a first turn that counts for nothing: kernels are compiled in it."""
    times: Times = {name: [] for name in contenders}
    for turn in range(ROUNDS + 1):
        for name, contender in contenders.items():
            seconds = measure(contender)
            times[name] += seconds if turn else []
    return times


Timed = Callable[[str, str, Callable[[Contender], Sequence[float]]], tuple[Times, dict[str, Any]]]


@pytest.fixture(scope="session")
def timed(contenders: dict[str, Contender], conformance_of: Callable[[str], str], environment: dict[str, Any]) -> Timed:
    """The times of a group of benchmarks, taken when its first is run, and the facts to tell with a contender's."""
    taken: dict[str, Times] = {}

    def of(group: str, name: str, measure: Callable[[Contender], Sequence[float]]) -> tuple[Times, dict[str, Any]]:
        conforms = conformance_of(contenders[name].impl)
        if group not in taken:
            taken[group] = in_turns(contenders, measure)
        return taken[group], environment | {"conformance": conforms}

    return of


def tell(benchmark: BenchmarkFixture, name: str, times: Times, facts: dict[str, Any]) -> None:
    """Play a contender's times back to pytest-benchmark, with what it does not compute itself."""
    mine = times[name]
    benchmark.pedantic(CLOCK.playing(mine), rounds=len(mine), iterations=1)  # type: ignore[no-untyped-call]
    ordered = sorted(mine)
    benchmark.extra_info |= facts | {"p95_ms": 1e3 * ordered[int(0.95 * (len(ordered) - 1))]}
    if name != "mlx_lm":
        pairs = zip(times["mlx_lm"], mine, strict=True)
        ratios = sorted(theirs / ours for theirs, ours in pairs)
        benchmark.extra_info["mlx_lm_over_this"] = round(ratios[len(ratios) // 2], 3)


@each_contender
@pytest.mark.parametrize("length", [128, 333, 512, 2048])
@pytest.mark.benchmark(timer=CLOCK.now)
def bench_ttft(benchmark: BenchmarkFixture, timed: Timed, name: str, length: int) -> None:
    """Time to first token: a prompt of `length` tokens through fresh caches, until the first token is known."""
    ids = prompt(length)
    benchmark.group = f"TTFT, {length} tokens"
    tell(benchmark, name, *timed(benchmark.group, name, lambda one: [_seconds(lambda: one.prefill(ids))]))


@each_contender
@pytest.mark.parametrize("depth", [1, 333, 2048])
@pytest.mark.benchmark(timer=CLOCK.now)
def bench_decode(benchmark: BenchmarkFixture, timed: Timed, name: str, depth: int) -> None:
    """Time of one token more, behind `depth` of them: greedy, the next step launched before the last token is read."""
    ids = prompt(depth)
    benchmark.group = f"decode, at depth {depth}"
    tell(benchmark, name, *timed(benchmark.group, name, lambda one: list(_token_times(one, ids))))


@each_contender
def bench_load_and_memory(
    benchmark: BenchmarkFixture,
    folder: Path,
    dtype: str,
    conformance_of: Callable[[str], str],
    environment: dict[str, Any],
    name: str,
) -> None:
    """Load time (the file in the system's cache), and bytes: held after load, at the peak of prefill and decoding."""
    benchmark.group = "load"
    conforms = conformance_of(CONTENDERS[name].impl)
    held: list[Contender] = []

    def forget() -> None:
        held.clear()
        gc.collect()
        mx.clear_cache()

    def load() -> None:
        held.append(CONTENDERS[name](folder, dtype))

    forget()
    before = mx.get_active_memory()
    benchmark.pedantic(load, setup=forget, rounds=3, iterations=1, warmup_rounds=1)  # type: ignore[no-untyped-call]
    (contender,) = held
    facts: dict[str, Any] = {"active_bytes": mx.get_active_memory() - before, "conformance": conforms}
    mx.reset_peak_memory()
    caches, token = contender.prefill(prompt(512))
    facts["prefill_peak_bytes"] = mx.get_peak_memory() - before
    mx.reset_peak_memory()
    for _ in range(8):
        mx.eval(token := contender.step(token, caches))
    facts |= {"decode_peak_bytes": mx.get_peak_memory() - before, "kv_bytes": contender.cache_bytes(caches)}
    process = psutil.Process().memory_info()
    facts |= {"process_resident_bytes": process.rss, "process_mapped_bytes": getattr(process, "shared", None)}
    benchmark.extra_info |= environment | facts
    forget()


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _token_times(contender: Contender, ids: mx.array) -> Iterator[float]:
    """Seconds from token to token, TOKENS of them, behind a prefill that is not counted."""
    caches, token = contender.prefill(ids)
    mx.async_eval(token := contender.step(token, caches))  # type: ignore[no-untyped-call]
    last = time.perf_counter()
    for _ in range(TOKENS):
        following = contender.step(token, caches)
        mx.async_eval(following)  # type: ignore[no-untyped-call]
        token.item()
        yield (now := time.perf_counter()) - last
        last, token = now, following
