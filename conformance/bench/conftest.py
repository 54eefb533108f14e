"""Options of the benchmarks, and the contenders, which must agree and conform before they are timed."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from rich.console import Console

from conformance.bench.prompt import prompt
from conformance.bench.summary import ROWS, show
from conformance.run.session import Session
from gemma4_contract import Fixtures
from gemma4_contract.profiles import installed_profiles

if TYPE_CHECKING:
    from conformance.bench.contenders import Contender

# MLX and the rest of `reference` are imported where they are used: `pytest conformance/` reads this file too.
DTYPES = ("float32", "bfloat16", "float16")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the benchmarks."""
    group = parser.getgroup("benchmarks of decoders")
    group.addoption(
        "--bench-model",
        default=None,
        metavar="DIR|MODEL",
        help="a checkpoint, or a model by rule (default: e2b-full on a GPU, e2b-mini without one)",
    )
    group.addoption("--bench-bits", type=int, default=None, metavar="N", help="quantise a model that is made by rule")
    group.addoption("--bench-dtype", default="bfloat16", choices=DTYPES, help="dtype of floats")


@pytest.hookimpl(trylast=True)  # after the tables of pytest-benchmark
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The tables of what was measured."""
    if rows := config.stash.get(ROWS, []):
        terminalreporter.section("mlx_impl beside mlx-lm")
        show(rows, Console(width=None if terminalreporter.isatty else 140))


@pytest.fixture(scope="session")
def folder(request: pytest.FixtureRequest) -> Path:
    """The checkpoint's folder."""
    import mlx.core as mx

    from conformance.bench.checkpoint import SIZES, by_rule

    asked: str | None = request.config.getoption("--bench-model")
    bits: int | None = request.config.getoption("--bench-bits")
    if asked is None:
        asked = "e2b-full" if mx.default_device() == mx.Device(mx.gpu) else "e2b-mini"
    if asked in SIZES:
        return by_rule(asked, bits)
    if not (Path(asked) / "config.json").is_file():
        pytest.exit(f"--bench-model: got {asked}, expected a checkpoint's folder or one of {', '.join(SIZES)}", 2)
    return Path(asked)


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> str:
    """The dtype of floats."""
    chosen: str = request.config.getoption("--bench-dtype")
    return chosen


@pytest.fixture(scope="session")
def conformance_of(dtype: str) -> Callable[[str], str]:
    """The verdict on an implementation in this dtype, judged once; a failure ends the benchmark."""
    levels: dict[str, str] = {}

    def level(impl: str) -> str:
        if impl not in levels:
            profile = next(profile.id for profile in installed_profiles().values() if profile.dtype == dtype)
            session = Session(impl, profile, patterns=["forward/e*-mini/*"])
            judged = [session.judge(item.id) for item in session.items]
            if failures := [one.text for one in judged if one.counts_as == "fail"]:
                pytest.fail(f"{impl} does not conform, and is not timed: {failures[0]}", pytrace=False)
            passed = sum(one.counts_as == "pass" for one in judged)
            levels[impl] = f"L2 and L3 of e2b-mini and e4b-mini: {passed} of {len(judged)} passed, none failed"
        return levels[impl]

    return level


@pytest.fixture(scope="session")
def contenders(folder: Path, dtype: str) -> dict[str, Contender]:
    """All contenders, with the same weights, after a check that they give the same logits."""
    import mlx.core as mx

    from conformance.bench.contenders import CONTENDERS

    made = {name: make(folder, dtype) for name, make in CONTENDERS.items()}
    ids = prompt(64)
    first, *others = (contender.logits(ids) for contender in made.values())
    policy = Fixtures().policy
    allowed = 2 * (policy.acceptance_f32 if dtype == "float32" else policy.acceptance_bf16)
    for name, other in zip(list(made)[1:], others, strict=True):
        error = float(mx.sqrt(mx.mean((other - first) ** 2) / mx.mean(first**2)))
        if not error <= allowed:
            pytest.fail(f"{name}: logits differ by {error:.1e} (relative RMS), expected {allowed:.0e}", pytrace=False)
    return made


@pytest.fixture(scope="session")
def environment(folder: Path, dtype: str) -> dict[str, Any]:
    """The machine and the checkpoint that the work ran on."""
    import mlx.core as mx

    device = mx.default_device()
    facts: dict[str, Any] = {
        "device": f"{device.type}".rpartition(".")[2],
        "chip": mx.device_info().get("device_name") or platform.processor() or platform.machine(),
        "power": _power(),
        "model": folder.name,
        "dtype": dtype,
        "versions": {name: version(name) for name in ("mlx", "mlx-lm")},
    }
    return facts


def _power() -> str:
    """The source of power: a laptop is slower on battery."""
    if sys.platform == "darwin":
        output = subprocess.run(["pmset", "-g", "batt"], capture_output=True, text=True, check=False).stdout
        return output.partition("'")[2].partition("'")[0] or "unknown"
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return "mains, or no battery" if battery is None or battery.power_plugged else "battery"
