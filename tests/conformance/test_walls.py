"""Who imports whom, and what a run of the suite can do without."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.runs import one_line, run, run_suite

OURS = ("conformance", "gemma4_contract", "mlx_impl", "reference")
CONTRACT, REFERENCE, MLX_IMPL = "gemma4_contract", "reference", "mlx_impl"
MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    "gemma4_contract": (),
    "mlx_impl": (),
    "reference": (CONTRACT,),
    "conformance": (CONTRACT,),
    "conformance/local": (CONTRACT, REFERENCE),
    "conformance/diagnosis": (CONTRACT, REFERENCE),
    "conformance/calibration": (CONTRACT, REFERENCE),
    "conformance/selftest": (CONTRACT, REFERENCE),
    "conformance/adapters/mlx_impl": (CONTRACT, MLX_IMPL),
    "conformance/adapters/transformers": (CONTRACT, REFERENCE),
    "conformance/adapters/oracle.py": (CONTRACT, REFERENCE),
    "conformance/adapters/mutant.py": (CONTRACT, REFERENCE),
    "conformance/bench": (CONTRACT, REFERENCE, MLX_IMPL),
    "conformance/cli": (CONTRACT, REFERENCE),
}
"""What a folder may import of ours besides its own package; the deepest entry that holds a file counts."""
ROOMS = ("conformance", "mlx_impl")
"""Packages whose folders are rooms: no room may need itself through others."""
LATE = ("conformance.local", "conformance.diagnosis", "conformance.calibration", "conformance.selftest")
"""Rooms that a command imports only when it runs."""


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth of its code, by its full name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_contract_names_no_option_of_a_command() -> None:
    for path in sources(CONTRACT):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"(^|\s)--[a-z]", node.value), f"{path}:{node.lineno}: {node.value}"


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in OURS}


def allowed(file: str) -> tuple[str, ...]:
    """The packages of ours that a file may import, read off its folder."""
    wall = max((wall for wall in MAY_IMPORT if f"{file}/".startswith(f"{wall}/")), key=len)
    return (file.split("/")[0], *MAY_IMPORT[wall])


def strangers(file: str, names: Iterable[str]) -> list[str]:
    """The imports of ours that lie outside what the file's folder may import."""
    return [f"{file} imports {name}" for name in sorted(names) if name.split(".")[0] not in allowed(file)]


FILES = [path.relative_to(ROOT).as_posix() for package in OURS for path in sources(package)]


def test_a_file_imports_what_its_folder_may() -> None:
    assert [stranger for file in FILES for stranger in strangers(file, ours(ROOT / file))] == []


def test_a_wall_would_be_seen_broken() -> None:
    assert "gemma4_contract.Case" in ours(ROOT / "conformance/judging/examine.py")
    assert len(FILES) > 250
    assert strangers("conformance/judging/new.py", ["reference.oracle"])
    assert strangers("conformance/test_new.py", ["reference.oracle"])
    assert strangers("conformance/adapters/mlx_lm/new.py", ["reference.oracle", "mlx_impl.load"])
    assert strangers("gemma4_contract/new.py", ["reference.config"])
    assert not strangers("conformance/selftest/new.py", ["reference.oracle", "conformance.judging.judge"])


@pytest.mark.parametrize("wall", [wall for wall in MAY_IMPORT if "/" in wall])
def test_a_folder_needs_what_it_may_import(wall: str) -> None:
    """A wall that could stand closer is a mistake in the table above."""
    files = [file for file in FILES if f"{file}/".startswith(f"{wall}/")]
    used = {name.split(".")[0] for file in files for name in ours(ROOT / file)}
    assert set(MAY_IMPORT[wall]) - used - {CONTRACT} == set()


def test_the_suite_is_alone_at_the_top_of_its_package() -> None:
    at_top = {path.name for path in (ROOT / "conformance").glob("*.py")}
    assert {name for name in at_top if not name.startswith("test_")} == {"__init__.py", "conftest.py"}


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_do_not_need_each_other_in_a_circle(package: str) -> None:
    needed: dict[str, set[str]] = {}
    for path in sources(package):
        room, *rest = path.relative_to(ROOT / package).parts
        if rest:
            inside = {name.split(".")[1] for name in ours(path) if name.startswith(f"{package}.")}
            needed.setdefault(room, set()).update(inside - {room})
    assert len(needed) > 5
    _no_circle({room: others & needed.keys() for room, others in needed.items()})


@pytest.mark.parametrize("path", sources("conformance/cli"), ids=lambda path: path.stem)
def test_a_command_imports_the_rest_of_reference_late(path: Path) -> None:
    """At its top level the command needs the contract alone, so that `list` and `verify` work without the extra."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    early = [f"{n.module}.{name.name}" for n in tree.body if isinstance(n, ast.ImportFrom) for name in n.names]
    assert early
    assert [m for m in early if m.startswith(("reference.", *LATE))] == []


@pytest.mark.parametrize("package", OURS)
def test_no_module_imports_itself_through_others(package: str) -> None:
    """No cycle among the modules of a package at import time; imports inside functions are late on purpose."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in sources(package)}
    graph = {name: _needed_at_import(path, set(names)) - {name} for name, path in names.items()}
    _no_circle(graph)


def _no_circle(needed: Mapping[str, set[str]]) -> None:
    """AssertionError with the way round, where there is one."""
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in sorted(needed[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in needed:
        visit(name, ())


def _needed_at_import(path: Path, names: set[str]) -> set[str]:
    needed = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            needed |= {alias.name for alias in node.names} & names
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                needed |= {submodule if submodule in names else str(node.module)} & names
    return needed


def test_a_run_does_without_torch_and_reference(tmp_path: Path) -> None:
    """Its report included."""
    blocked = ",".join(("torch", "transformers", "mlx_lm", REFERENCE))
    options = ("--impl", "mlx_impl", "--cases", "module/rope/*", "--report", str(tmp_path))
    done = run_suite(*options, env={"SUITE_BLOCKED": blocked})
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 14 passed in " in done.stdout
    assert len((tmp_path / "report.jsonl").read_text().splitlines()) == 1 + 14


def test_a_port_is_judged_locally_without_torch(tmp_path: Path) -> None:
    blocked = ",".join(("torch", "transformers", "mlx_lm"))
    options = ("--impl", "mlx_impl", "--cases", "layer/e2b-mini/*", "--report", str(tmp_path))
    done = run_suite(*options, env={"SUITE_BLOCKED": blocked})
    assert done.returncode == 0, done.stdout + done.stderr
    _, *cases = (json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines())
    assert {case["judgement"] for case in cases} == {"both"}


def test_what_is_blocked_is_blocked() -> None:
    """The test above could fail: the oracle lies in what is blocked there."""
    done = run_suite("--impl", "oracle", "--cases", "module/rope/*", env={"SUITE_BLOCKED": REFERENCE})
    assert done.returncode == 3
    assert one_line(done.stderr).startswith("Exit: --impl oracle: No module named 'reference'")


@pytest.mark.parametrize(
    ("program", "strange"),
    [
        ("import mlx_impl", ("conformance", "reference", "torch", "transformers", "mlx_lm")),
        (
            "import gemma4_contract",
            ("conformance", "mlx_impl", "mlx", "torch", "reference"),
        ),
        (
            "import conformance.cli",
            ("mlx_impl", "mlx", "torch", "transformers", "reference"),
        ),
    ],
)
def test_an_import_brings_no_strangers(program: str, strange: tuple[str, ...]) -> None:
    loaded = f"{program}; import sys; print(*sorted(sys.modules.keys() & {set(strange)!r}))"
    done = run([sys.executable, "-c", loaded])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("package", ["mlx_impl", "gemma4_contract"])
def test_a_package_stands_alone(package: str) -> None:
    others = [name for name in OURS if name != package.split(".")[0]]
    done = run(
        [sys.executable, "-c", f"import tests.support.plugin, {package}"],
        {"SUITE_BLOCKED": ",".join((*others, "torch", "transformers"))},
    )
    assert done.returncode == 0, done.stderr
