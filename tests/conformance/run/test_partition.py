"""Every case of the fixtures is put by exactly one module of the suite."""

from __future__ import annotations

import importlib
from fnmatch import fnmatchcase

import pytest

from gemma4_contract import Fixtures
from tests.support import ROOT

MODULES = sorted(path.stem for path in (ROOT / "conformance").glob("test_*.py"))
IDS = Fixtures().case_ids + Fixtures().prompts.ids


def globs(module: str) -> tuple[str, ...]:
    cases: tuple[str, ...] = importlib.import_module(f"conformance.{module}").CASES
    return cases


def test_every_case_is_put_by_exactly_one_module() -> None:
    assert IDS
    takers = {case: [m for m in MODULES if any(fnmatchcase(case, glob) for glob in globs(m))] for case in IDS}
    assert {case: names for case, names in takers.items() if len(names) != 1} == {}


@pytest.mark.parametrize("module", MODULES)
def test_every_glob_matches_a_case(module: str) -> None:
    assert [glob for glob in globs(module) if not any(fnmatchcase(case, glob) for case in IDS)] == []


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_one_test_of_its_name(module: str) -> None:
    tests = [name for name in vars(importlib.import_module(f"conformance.{module}")) if name.startswith("test_")]
    assert tests == [module]
