"""docs/FIXTURES.md says what the code does: rule, bit patterns, self-check, kinds."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import ml_dtypes
import numpy as np
import pytest

from gemma4_contract import models
from reference import weights
from tests.support import ROOT

DOC = (ROOT / "docs" / "FIXTURES.md").read_text(encoding="utf-8")
CHECKS = re.findall(r"^\| `(\S+)` \| `([0-9a-f]{16})` \| (\d+) \| ([-\d ]+) \|$", DOC, re.MULTILINE)


def bits(value: float) -> str:
    return f"{int(np.asarray(value).astype(ml_dtypes.bfloat16).view(np.uint16)):04x}"


def test_the_self_check_has_three_names_and_one_index_past_int32() -> None:
    assert len(CHECKS) == 3
    assert max(int(first) for _, _, first, _ in CHECKS) > 2**31


@pytest.mark.parametrize(("name", "digest", "first", "values"), CHECKS)
def test_the_self_check_is_what_the_rule_gives(name: str, digest: str, first: str, values: str) -> None:
    assert f"{weights.fnv1a64(name):016x}" == digest
    start = int(first)
    expected = [int(value) for value in values.split()]
    assert len(expected) == 16
    assert weights.q(name, start, start + 16).tolist() == expected


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the JavaScript with")
def test_the_javascript_in_the_document_gives_the_self_check(tmp_path: Path) -> None:
    (code,) = re.findall(r"```js\n(.*?)```", DOC, re.DOTALL)
    calls = [f"Array.from({{length: 16}}, (_, j) => q({name!r}, {first} + j))" for name, _, first, _ in CHECKS]
    script = tmp_path / "rule.mjs"
    script.write_text(f"{code}\nconsole.log([{', '.join(calls)}].map((row) => row.join(' ')).join('\\n'));")
    done = subprocess.run(["node", str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == [values for *_, values in CHECKS]


def test_the_table_of_powers_is_the_one_in_use() -> None:
    (block,) = re.findall(r"```\n((?:[0-9a-f]{4}[ \n]){256})```", DOC)
    assert block.split() == [bits(value) for value in weights.EXP2_TABLE]


def test_the_bases_have_the_bits_that_the_document_lists() -> None:
    for label, numerator in (("`q_norm` \\|", 1.4), ("`q_norm` of the last", 5.6)):
        (row,) = re.findall(rf"^\| {label}.*$", DOC, re.MULTILINE)
        pairs = re.findall(r"(\d+) `([0-9a-f]{4})`", row)
        assert pairs
        assert [(size, bits(numerator / math.sqrt(int(size)))) for size, _ in pairs] == pairs
    pairs = re.findall(r"(\d+) `([0-9a-f]{4})`", DOC[DOC.index("`router.scale`") :].splitlines()[0])
    assert [(size, bits(1.5 * math.sqrt(int(size)))) for size, _ in pairs] == pairs
    scalars = " ".join(bits(value) for value in weights.LAYER_SCALARS)
    extremes = " ".join(bits(value) for value in weights.MINI_LAYER_SCALARS.values())
    assert f"`{scalars}`" in DOC
    assert f"`{extremes}`" in DOC


def test_every_kind_of_the_format_is_described() -> None:
    described = re.findall(r"^\| `([a-z_]+)` \|", DOC[DOC.index("### Kinds") : DOC.index("## Weights")], re.MULTILINE)
    assert sorted(described) == sorted(get_args(models.Kind))
