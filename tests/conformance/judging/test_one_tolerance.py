"""No value tolerance stands in the code: floors and `floors/policy.json` hold them all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

ROOMS = ("conformance/judging", "conformance/calibration", "conformance/selftest", "reference/export")
JUDGE = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
HARMLESS = {0.0, 1.0, 0.99}
"""Nothing, everything, and the 99th percentile."""
COMPARERS = {"allclose", "isclose", "assert_allclose", "assert_close", "approx", "array_almost_equal"}


def float_constants(source: str) -> Iterator[float]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield node.value


def calls(source: str) -> set[str]:
    functions = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [
        f.attr if isinstance(f, ast.Attribute) else f.id for f in functions if isinstance(f, ast.Attribute | ast.Name)
    ]
    return set(names)


@pytest.mark.parametrize("path", JUDGE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_number_of_the_judge_is_a_tolerance_of_its_own(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert set(float_constants(source)) <= HARMLESS
    assert not calls(source) & COMPARERS


def test_the_search_finds_a_planted_tolerance() -> None:
    assert set(float_constants("def f(x):\n    return x < 1e-5")) == {1e-5}
    assert calls("numpy.testing.assert_allclose(a, b)") & COMPARERS
