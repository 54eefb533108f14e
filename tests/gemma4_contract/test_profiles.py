"""Profiles are data: true of their dtypes, stated once, and a new one needs a file alone."""

from __future__ import annotations

import ast
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from conformance.reporting import jsonl as report_file
from gemma4_contract import FixtureError, Fixtures, tensors
from gemma4_contract.files import canonical_json
from gemma4_contract.profiles import Profile, installed_profiles
from gemma4_contract.protocol import HelloAnswer
from gemma4_contract.tensors import DTYPES
from reference.oracle import arithmetic
from tests.support import ROOT
from tests.support.commands import Call, call_command
from tests.support.installed import FIXTURES
from tests.support.runs import PORTS, one_line
from tests.support.trees import ROPE, edit_json, small_tree

PROFILES = tuple(FIXTURES.known_profiles.values())


# What the files say


def test_the_exact_profiles_come_first() -> None:
    assert [profile.id for profile in PROFILES] == ["f64", "f32", "bf16", "f16"]
    assert FIXTURES.profiles == [profile.id for profile in PROFILES]
    assert dict(FIXTURES.known_profiles) == dict(installed_profiles())


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.id)
def test_a_profile_is_true_of_its_dtype(profile: Profile) -> None:
    storage, info = DTYPES[profile.storage], ml_dtypes.finfo(DTYPES[profile.storage])  # type: ignore[no-untyped-call]
    assert storage.name == profile.dtype
    assert profile.unit_roundoff == float(info.eps) / 2
    assert profile.smallest_normal == float(info.smallest_normal)
    assert profile.floors == profile.id


def test_sixteen_bits_accumulate_and_have_their_islands_in_float32() -> None:
    stated = {profile.id: (profile.storage, profile.accumulation, profile.islands) for profile in PROFILES}
    assert stated == {
        "f64": ("F64", "F64", "F64"),
        "f32": ("F32", "F32", "F32"),
        "bf16": ("BF16", "F32", "F32"),
        "f16": ("F16", "F32", "F32"),
    }


def test_the_oracle_computes_what_the_profiles_say() -> None:
    f64, f32, f16 = (np.dtype(name) for name in ("float64", "float32", "float16"))
    bf16 = np.dtype(ml_dtypes.bfloat16)
    computed = {one.name: (one.dtype, one.wide, one.accumulate) for one in arithmetic.PROFILES.values()}
    assert computed == {
        "f64": (f64, f64, f64),
        "f32": (f32, f32, f32),
        "bf16": (bf16, f32, f32),
        "f16": (f16, f32, f32),
    }
    every_op = arithmetic.BF16_EVERY_OP
    assert (every_op.dtype, every_op.wide, every_op.accumulate) == (bf16, bf16, f32)


# What is wrong with a file


def other_id(raw: dict[str, Any]) -> None:
    raw["id"] = "f33"


def no_floors(raw: dict[str, Any]) -> None:
    raw["floors"] = "f31"


def no_dtype(raw: dict[str, Any]) -> None:
    raw["storage"] = "F31"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (other_id, "profiles/f32.json: got id 'f33', expected its name 'f32'; restore the fixtures"),
        (
            no_floors,
            "profiles/f32.json: got floors of 'f31', expected one of bf16, f16, f32, f64; restore the fixtures",
        ),
        (
            no_dtype,
            "profiles/f32.json: got Input should be 'F64', 'F32', 'BF16' or 'F16' at storage, expected a Profile",
        ),
    ],
)
def test_a_wrong_profile_is_a_fault(tmp_path: Path, damage: Callable[[dict[str, Any]], None], said: str) -> None:
    root = small_tree(tmp_path / "fixtures")
    edit_json(root / "profiles" / "f32.json", damage)
    Fixtures(root).write_sums()
    assert any(str(fault).startswith(f"{root}/{said}") for fault in Fixtures(root).verify())
    with pytest.raises(FixtureError, match=r"profiles/f32\.json: got "):
        Fixtures(root).profile("bf16")


def unknown_in_case(root: Path) -> None:
    edit_json(root / "cases" / ROPE / "case.json", lambda raw: raw.update(profiles=["f32", "f31"]))


def unknown_in_floors(root: Path) -> None:
    edit_json(root / "floors" / "f32.json", lambda raw: raw.update(profile="f31"))


@pytest.mark.parametrize(
    ("damage", "file"), [(unknown_in_case, f"cases/{ROPE}/case.json"), (unknown_in_floors, "floors/f32.json")]
)
def test_a_file_that_names_a_profile_that_does_not_exist_is_a_fault(
    tmp_path: Path, damage: Callable[[Path], None], file: str
) -> None:
    root = small_tree(tmp_path / "fixtures")
    damage(root)
    Fixtures(root).write_sums()
    (fault,) = Fixtures(root).verify()
    assert str(fault).startswith(f"{root}/{file}: got the profile 'f31', expected one of f64, f32, bf16, f16; restore ")


def test_fixtures_without_profiles_say_so(tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    with pytest.raises(
        FixtureError, match="got no profile f32, expected a file for each profile; restore the fixtures"
    ):
        Fixtures(tmp_path).profile("f32")


# The wire


SAID = {"protocol": 1, "implementation": {"name": "x", "version": "1", "language": "C"}, "kinds": ["rope"]}


@pytest.mark.parametrize("wrong", ["f31", "F32", "", 32, None, ["f32"]])
def test_the_wire_knows_the_profiles_of_the_fixtures_in_use(wrong: Any) -> None:
    assert HelloAnswer.model_validate({**SAID, "profiles": ["f16", "f64"], "internal": "f32"}).profiles == [
        "f16",
        "f64",
    ]
    known = "Input should be 'f64', 'f32', 'bf16' or 'f16' "
    with pytest.raises(ValueError, match=rf"profiles\.1\n  {known}"):
        HelloAnswer.model_validate({**SAID, "profiles": ["f32", wrong]})
    if wrong is not None:
        with pytest.raises(ValueError, match=f"internal\n  {known}"):
            HelloAnswer.model_validate({**SAID, "profiles": ["f32"], "internal": wrong})
    others = {"profiles": ["doubles"]}
    assert HelloAnswer.model_validate({**SAID, "profiles": ["doubles"]}, context=others).profiles == ["doubles"]
    with pytest.raises(ValueError, match=r"profiles\.0\n  Input should be 'doubles' "):
        HelloAnswer.model_validate({**SAID, "profiles": ["f32"]}, context=others)


# A profile more


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Fixtures with a profile `doubles`: f64's facts, f32's floors."""
    root = small_tree(tmp_path / "fixtures")
    facts = json.loads((root / "profiles" / "f64.json").read_bytes())
    facts |= {"id": "doubles", "does": "Made up by a test.", "order": 9, "floors": "f32"}
    (root / "profiles" / "doubles.json").write_bytes(canonical_json(facts))
    Fixtures(root).write_sums()
    return root


def test_a_profile_more_is_a_file_more(root: Path) -> None:
    store = Fixtures(root)
    assert store.verify() == []
    assert list(store.known_profiles) == ["f64", "f32", "bf16", "f16", "doubles"]
    assert store.profiles == ["f64", "f32", "bf16", "f16"]  # doubles has no floors of its own
    assert store.floors("doubles") == store.floors("f32")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command in this process: exit code, stdout, stderr."""
    monkeypatch.delenv("GEMMA4_FIXTURES", raising=False)

    return functools.partial(call_command, capsys, monkeypatch)


IN_PROCESS = ("--impl", "tests.support.in_process:Doubles")
BY_LINES = ("--port", f"{sys.executable} {PORTS / 'served.py'} tests.support.in_process:Doubles")


@pytest.mark.parametrize("port", [IN_PROCESS, BY_LINES], ids=["in process", "by lines"])
def test_a_port_is_judged_in_it_and_reported(
    call: Call, root: Path, tmp_path: Path, port: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the port
    report, where = tmp_path / "report", ("--fixtures-dir", str(root))
    code, out, err = call("run", *port, "--profile", "doubles", "--cases", "module/*", "--report", str(report), *where)
    assert (code, err) == (0, ""), out
    line, cases = report_file.read(report)
    (tap,) = cases[ROPE].taps
    assert (line.profile, list(cases), tap.status) == ("doubles", [ROPE], "pass")
    assert tap.ratio is not None
    assert tap.ratio < 1e-6  # float64 within the floors of float32
    assert "profile doubles" in (report / "report.html").read_text(encoding="utf-8")
    assert call("diagnose", str(report), *where) == (0, "nothing failed\n", "")


def test_it_is_judged_by_its_facts(call: Call, root: Path, tmp_path: Path) -> None:
    report, where = str(tmp_path / "report"), ("--fixtures-dir", str(root))
    run = ("run", "--impl", "tests.support.in_process:Singles", "--profile", "doubles", "--cases", "module/*")
    for command in ((*run, "--report", report), ("diagnose", report)):
        code, out, _ = call(*command, *where)
        assert code == 1
        assert "dtype float32, expected float64" in out


def test_files_of_answers_are_judged_in_it(call: Call, root: Path, tmp_path: Path) -> None:
    golden = Fixtures(root).golden(Fixtures(root).case(ROPE))
    tensors.write(tmp_path / "answer.safetensors", golden)
    tensors.write(tmp_path / "dump.safetensors", {f"{ROPE}/{name}": value for name, value in golden.items()})
    options = ("--profile", "doubles", "--fixtures-dir", str(root))
    assert call("check", ROPE, str(tmp_path / "answer.safetensors"), *options)[0] == 0
    assert call("run", "--dump", str(tmp_path / "dump.safetensors"), "--cases", "module/*", *options)[0] == 0


def test_it_does_not_exist_elsewhere(call: Call, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code, _, err = call("run", *BY_LINES)
    assert code == 3
    assert one_line(err).endswith(": Input should be 'f64', 'f32', 'bf16' or 'f16' at profiles.0")
    code, _, err = call("floors", "--profile", "doubles", "--fixtures-dir", str(root))
    assert code == 2
    assert one_line(err) == "--profile: got doubles, which the floors of f32 judge, expected f32"


# One place


IDS = {profile.id for profile in PROFILES}
DTYPE_NAMES = IDS | {profile.dtype for profile in PROFILES}


def pairs(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """What a literal pairs: a dict, the keywords of a call, a row of tuples."""
    if isinstance(node, ast.Dict):
        yield from ((key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None)
    elif isinstance(node, ast.Call):
        yield from ((ast.Constant(word.arg), word.value) for word in node.keywords)
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        rows = (row for row in node.elts if isinstance(row, ast.Tuple) and len(row.elts) > 1)
        yield from ((row.elts[0], ast.Tuple(row.elts[1:], ast.Load())) for row in rows)


def names_profile(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in IDS


def names_dtype(node: ast.AST) -> bool:
    """Whether an expression spells a dtype, or is a number that a dtype may have."""
    for part in ast.walk(node):
        name = part.attr if isinstance(part, ast.Attribute) else part.id if isinstance(part, ast.Name) else None
        if isinstance(part, ast.Constant):
            if isinstance(part.value, int | float) and not isinstance(part.value, bool):
                return True
            name = part.value if isinstance(part.value, str) else None
        if name is not None and name.strip("_").lower() in DTYPE_NAMES:
            return True
    return False


def tables(source: str) -> list[int]:
    """The lines of literals that pair two profiles or more with dtypes or their numbers."""
    found = []
    for node in ast.walk(ast.parse(source)):
        facts = [(names_profile(a) and names_dtype(b)) or (names_profile(b) and names_dtype(a)) for a, b in pairs(node)]
        if sum(facts) > 1:
            found.append(node.lineno)  # type: ignore[attr-defined]
    return found


OURS = [
    path for name in ("conformance", "gemma4_contract", "reference") for path in sorted((ROOT / name).rglob("*.py"))
]


def test_no_module_says_again_what_a_profile_is() -> None:
    spelled = {path.relative_to(ROOT).as_posix(): tables(path.read_text(encoding="utf-8")) for path in OURS}
    assert len(spelled) > 200
    assert {path: lines for path, lines in spelled.items() if lines} == {}


@pytest.mark.parametrize(
    "table",
    [
        '{"f64": 52, "f32": 23, "bf16": 7, "f16": 10}',
        '{"f32": mx.float32, "bf16": mx.bfloat16}',
        '{"float32": "f32", "bfloat16": "bf16"}',
        '{"f64": ("float64",), "f32": ("float32", "float64")}',
        '{"bf16": ("BF16", "bfloat16"), "f16": ("F16", "float16")}',
        '{"f64": -1022, "f16": -14}',
        '{"f64": _F64, "f32": np.dtype(np.float32)}',
        "dict(f64=np.float64, f32=np.float32)",
        '[("f32", "float32"), ("f16", "float16")]',
    ],
)
def test_a_table_would_be_found(table: str) -> None:
    assert tables(f"TABLE = {table}") == [1]
    assert tables('{"f64": "The dtype is wide.", "f32": policy.limit, "bf16": measured(x)}') == []
