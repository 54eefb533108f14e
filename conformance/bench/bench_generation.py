"""mlx_impl and mlx-lm on one checkpoint: load time, time to first token, time per token, memory.

Contenders are timed in turns and reported one after the other; one that does not conform gets no figure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conformance.bench.clock import CLOCK
from conformance.bench.contenders import CONTENDERS, Contender
from conformance.bench.footprint import evict, footprint
from conformance.bench.prompt import prompt
from conformance.bench.summary import ROWS, Row

ROUNDS, TOKENS, LOADS = 5, 64, 3
each_contender = pytest.mark.parametrize("name", CONTENDERS)

Times = dict[str, list[float]]


def in_turns(contenders: dict[str, Contender], measure: Callable[[Contender], Sequence[float]]) -> Times:
    """Measure A, B, C, A, B, C, ... after a first turn that is not counted, in which kernels are compiled."""
    times: Times = {name: [] for name in contenders}
    for turn in range(ROUNDS + 1):
        for name, contender in contenders.items():
            seconds = measure(contender)
            times[name] += seconds if turn else []
    return times


Timed = Callable[[str, str, Callable[[Contender], Sequence[float]]], tuple[Times, dict[str, Any]]]


@pytest.fixture(scope="session")
def timed(contenders: dict[str, Contender], conformance_of: Callable[[str], str], environment: dict[str, Any]) -> Timed:
    """The times of a group of benchmarks, measured when its first one runs, and the facts about each contender."""
    taken: dict[str, Times] = {}

    def of(group: str, name: str, measure: Callable[[Contender], Sequence[float]]) -> tuple[Times, dict[str, Any]]:
        conforms = conformance_of(contenders[name].impl)
        if group not in taken:
            taken[group] = in_turns(contenders, measure)
        return taken[group], environment | {"conformance": conforms}

    return of


Tell = Callable[[str, Sequence[float], dict[str, Any], Sequence[float] | None], None]


@pytest.fixture
def tell(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Tell:
    """Play a contender's times back to pytest-benchmark, with facts, and note them for the summary.

    `theirs` are mlx-lm's times, one for each of the contender's that was taken in the same turn.
    """

    def play(name: str, mine: Sequence[float], facts: dict[str, Any], theirs: Sequence[float] | None) -> None:
        benchmark.pedantic(CLOCK.playing(mine), rounds=len(mine), iterations=1)  # type: ignore[no-untyped-call]
        p95 = sorted(mine)[int(0.95 * (len(mine) - 1))] if len(mine) >= TOKENS else None
        ratio = None
        if theirs is not None and name != "mlx_lm":
            ratio = statistics.median(other / own for other, own in zip(theirs, mine, strict=True))
        benchmark.extra_info |= facts | {"p95_ms": p95 and 1e3 * p95, "mlx_lm_over_this": ratio and round(ratio, 3)}
        row = Row(
            group=str(benchmark.group),
            name=name,
            median_s=statistics.median(mine),
            p95_s=p95,
            ratio=ratio,
            facts=facts,
        )
        request.config.stash.setdefault(ROWS, []).append(row)

    return play


@each_contender
@pytest.mark.parametrize("length", [128, 333, 512, 2048])
@pytest.mark.benchmark(timer=CLOCK.now)
def bench_ttft(benchmark: BenchmarkFixture, timed: Timed, tell: Tell, name: str, length: int) -> None:
    """Time to first token: a prompt of `length` tokens through fresh caches, until the first token is known."""
    ids = prompt(length)
    benchmark.group = f"TTFT, {length} tokens"
    times, facts = timed(benchmark.group, name, lambda one: [_seconds(lambda: one.prefill(ids))])
    tell(name, times[name], facts, times["mlx_lm"])


@each_contender
@pytest.mark.parametrize("depth", [1, 333, 2048])
@pytest.mark.benchmark(timer=CLOCK.now)
def bench_decode(benchmark: BenchmarkFixture, timed: Timed, tell: Tell, name: str, depth: int) -> None:
    """Time of one more token after `depth` tokens: greedy, the next step is launched before the last token is read."""
    ids = prompt(depth)
    benchmark.group = f"decode, at depth {depth}"
    times, facts = timed(benchmark.group, name, lambda one: list(_token_times(one, ids)))
    tell(name, times[name], facts, times["mlx_lm"])


@each_contender
@pytest.mark.parametrize("state", ["warm", "cold"])
@pytest.mark.benchmark(timer=CLOCK.now)
def bench_load(
    benchmark: BenchmarkFixture,
    tell: Tell,
    folder: Path,
    dtype: str,
    conformance_of: Callable[[str], str],
    environment: dict[str, Any],
    name: str,
    state: str,
) -> None:
    """Load time, with or without the files in the system's cache, and memory, each in a process of its own."""
    benchmark.group = f"load, {state}"
    facts = environment | {"conformance": conformance_of(CONTENDERS[name].impl)}
    if state == "warm":
        footprint(name, folder, dtype)  # the files are read, kernels compiled
    taken = []
    for _ in range(LOADS):
        if state == "cold" and not evict(folder):
            pytest.skip("this system has no call that empties its file cache of a file")
        taken.append(footprint(name, folder, dtype))
    seconds = [one.pop("load_s") for one in taken]
    tell(name, seconds, facts | taken[-1], None)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _token_times(contender: Contender, ids: mx.array) -> Iterator[float]:
    """Seconds between tokens, for TOKENS of them, after a prefill that is not counted."""
    caches, token = contender.prefill(ids)
    mx.async_eval(token := contender.step(token, caches))  # type: ignore[no-untyped-call]
    last = time.perf_counter()
    for _ in range(TOKENS):
        following = contender.step(token, caches)
        mx.async_eval(following)  # type: ignore[no-untyped-call]
        token.item()
        yield (now := time.perf_counter()) - last
        last, token = now, following
