"""The wheel: every package once, the fixtures inside, and all of it at work far from a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support import ROOT
from tests.support.runs import environment

pytestmark = pytest.mark.slow  # a wheel is built and installed

PACKAGES = {"conformance", "gemma4_contract", "mlx_impl", "reference"}
WHERE = f"import importlib; print(*(importlib.import_module(name).__file__ for name in {sorted(PACKAGES)!r}))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` would install."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, timeout=300)
    return folder


def run(command: list[str], packages: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**environment(), "PYTHONPATH": str(packages)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_the_wheel_holds_each_package_once_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    sums = [name for name in names if name.endswith("/SHA256SUMS")]
    assert sums == ["gemma4_contract/fixtures/SHA256SUMS"]
    assert "mlx_impl/README.md" in names or not (ROOT / "mlx_impl" / "README.md").exists()


def test_the_command_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    program = "from conformance.cli import main; main()"
    done = run([sys.executable, "-c", program, "run", "--cases", "module/rope/*"], installed, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    where = run([sys.executable, "-c", WHERE], installed, tmp_path).stdout.split()
    assert {Path(file).parents[1] for file in where} == {installed}
    assert os.listdir(tmp_path) == []


def test_a_run_in_the_checkout_takes_every_package_from_one_place(installed: Path, tmp_path: Path) -> None:
    """Where a plain install and a checkout are both at hand, a run never mixes them."""
    plugin = tmp_path / "places.py"
    plugin.write_text(
        "import sys\n"
        "def pytest_sessionfinish():\n"
        f"    names = {sorted(PACKAGES)!r}\n"
        "    print('PLACES', *sorted({sys.modules[n].__file__.rsplit('/', 2)[0] for n in names if n in sys.modules}))\n"
    )
    command = [sys.executable, "-P", "-m", "pytest", "conformance/test_norm.py", "-q", "-s", "-p", "places"]
    env = {**environment(), "PYTHONPATH": os.pathsep.join((str(tmp_path), str(installed)))}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "PLACES" in line]
    assert line.split("PLACES ")[1].split() == [str(ROOT)]
