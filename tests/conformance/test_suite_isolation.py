"""Who imports whom, and what a run of the suite can do without."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from suite_plugin import REFERENCE_BUT_FORMAT
from suite_runs import ROOT, one_line, run, run_suite

OURS = ("conformance", "mlx_impl", "reference")
ALL_OF_REFERENCE = (
    "floors.py",
    "honest.py",
    "kill_matrix.py",
    "mutation_score.py",
    "kill_page.py",
    "catalogue.py",
    "bench/checkpoint.py",
    "full_size_floors.py",
    "full_size_passes.py",
    "adapters/oracle.py",
    "adapters/transformers.py",
    "adapters/transformers_prompts.py",
    "adapters/mutant.py",
    "diagnosis/diagnose.py",
    "diagnosis/nearest.py",
    "diagnosis/telling.py",
    "diagnosis/whole.py",
    "diagnosis/words.py",
    "cli/app.py",
    "cli/bugs.py",
    "cli/diagnose.py",
    "cli/fixtures.py",
    "cli/full_size.py",
    "cli/prompts.py",
    "cli/self_test.py",
)
"""What in `conformance` needs more of `reference` than its format: commands and adapters, never the judge."""
LATE = ("conformance.floors", "conformance.honest", "conformance.kill", "conformance.mutation", "conformance.catalogue")
"""What a command imports of ours only when it runs, besides `conformance.diagnosis`."""


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


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in OURS}


def strangers(package: str, allowed: tuple[str, ...], *, but: tuple[str, ...] = ()) -> list[str]:
    """Imports of ours by a package that lie outside what it may import."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        if path.relative_to(ROOT / package).as_posix() not in but
        for name in sorted(ours(path))
        if not any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)
    ]


def test_the_walk_sees_imports() -> None:
    assert "reference.format.Case" in set(imports(ROOT / "conformance" / "examine.py"))
    assert "reference.cases.Draft" in set(imports(ROOT / "conformance" / "floors.py"))
    assert len(sources("conformance")) > 20
    assert strangers("conformance", ("conformance",)) != []


def test_mlx_impl_imports_nothing_of_ours() -> None:
    assert strangers("mlx_impl", ("mlx_impl",)) == []


def test_reference_imports_only_itself() -> None:
    assert strangers("reference", ("reference",)) == []


def test_the_format_imports_only_itself() -> None:
    assert strangers("reference/format", ("reference.format",)) == []


def test_the_judge_imports_nothing_of_reference_but_its_format() -> None:
    allowed = ("conformance", "reference.format", "mlx_impl")
    assert strangers("conformance", allowed, but=ALL_OF_REFERENCE) == []


def test_only_its_own_adapter_imports_mlx_impl() -> None:
    importers = {
        path.relative_to(ROOT / "conformance").as_posix()
        for path in sources("conformance")
        if any(name.split(".")[0] == "mlx_impl" for name in ours(path))
    }
    assert {name for name in importers if not name.startswith(("adapters/mlx_impl", "bench/"))} == set()


def test_the_exceptions_are_needed() -> None:
    for name in ALL_OF_REFERENCE:
        assert any(
            module.startswith("reference.") and not module.startswith("reference.format")
            for module in ours(ROOT / "conformance" / name)
        ), name


@pytest.mark.parametrize("path", sources("conformance/cli"), ids=lambda path: path.stem)
def test_a_command_imports_the_rest_of_reference_late(path: Path) -> None:
    """At its top level the command needs the format alone, so that `list` and `verify` work without the extra."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    early = [f"{n.module}.{name.name}" for n in tree.body if isinstance(n, ast.ImportFrom) for name in n.names]
    assert early
    assert [m for m in early if m.startswith("reference.") and not m.startswith("reference.format.")] == []
    assert [m for m in early if m.startswith((*LATE, "conformance.diagnosis"))] == []


@pytest.mark.parametrize("package", OURS)
def test_no_module_imports_itself_through_others(package: str) -> None:
    """No cycle among the modules of a package at import time; imports inside functions are late on purpose."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in sources(package)}
    graph = {name: _needed_at_import(path, set(names)) - {name} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for needed in sorted(graph[name]):
                visit(needed, (*above, name))
            done.add(name)

    for name in names:
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


def test_a_run_does_without_torch_and_all_of_reference_but_its_format(tmp_path: Path) -> None:
    """Its report included."""
    blocked = ",".join(("torch", "transformers", "mlx_lm", REFERENCE_BUT_FORMAT))
    options = ("--impl", "mlx_impl", "--cases", "module/rope/*", "--report", str(tmp_path))
    done = run_suite(*options, env={"SUITE_BLOCKED": blocked})
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 14 passed in " in done.stdout
    assert len((tmp_path / "report.jsonl").read_text().splitlines()) == 1 + 14


def test_what_is_blocked_is_blocked() -> None:
    """The test above could fail: the oracle lies in what is blocked there."""
    done = run_suite("--impl", "oracle", "--cases", "module/rope/*", env={"SUITE_BLOCKED": REFERENCE_BUT_FORMAT})
    assert done.returncode == 3
    assert one_line(done.stderr).startswith("Exit: --impl oracle: cannot import name 'loading' from 'reference' (")


@pytest.mark.parametrize(
    ("program", "strange"),
    [
        ("import mlx_impl", ("conformance", "reference", "torch", "transformers", "mlx_lm")),
        (
            "import reference.format",
            ("conformance", "mlx_impl", "mlx", "torch", "reference.config"),
        ),
        (
            "import conformance.cli",
            ("mlx_impl", "mlx", "torch", "transformers", "reference.oracle", "reference.mutants", "reference.config"),
        ),
    ],
)
def test_an_import_brings_no_strangers(program: str, strange: tuple[str, ...]) -> None:
    loaded = f"{program}; import sys; print(*sorted(sys.modules.keys() & {set(strange)!r}))"
    done = run([sys.executable, "-c", loaded])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("package", ["mlx_impl", "reference.format"])
def test_a_package_stands_alone(package: str) -> None:
    others = [name for name in OURS if name != package.split(".")[0]]
    done = run(
        [sys.executable, "-c", f"import suite_plugin, {package}"],
        {"SUITE_BLOCKED": ",".join((*others, "torch", "transformers"))},
    )
    assert done.returncode == 0, done.stderr
