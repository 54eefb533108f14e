"""The fixture format: strict and canonical JSON, files whole or absent, tensors to the bit, errors in one line."""

import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gemma4_contract import (
    Case,
    FixtureError,
    Fixtures,
    Floors,
    GoldenPointer,
    ModelCard,
    Plan,
    Policy,
    Provenance,
    TapSpec,
    TensorFile,
    tensors,
)
from gemma4_contract.documents import read_model, write_model
from gemma4_contract.files import canonical_json, sha256, write_atomic
from gemma4_contract.layout import row_axis, select_rows
from gemma4_contract.models import Variant
from gemma4_contract.schema import SCHEMAS, schema_files, write_schemas
from gemma4_contract.selection import spread_mask

FILE = TensorFile(file="expected.safetensors", sha256="0" * 64)
TAP = TapSpec(name="y", parents=[], axes=["L", "D"], dtype="F64", shape=[3, 4], sha256="1" * 64, cls="floor")
PROVENANCE = Provenance(
    generator="test", versions={"numpy": "2"}, command="make", derivations=["a", "b"], agreement=1e-16
)
CASE = Case(
    id="module/x/y",
    kind="rms_norm",
    level="L1",
    topic="norm",
    purpose="Some.",
    golden=FILE,
    taps=[TAP],
    provenance=PROVENANCE,
)

VALUES: dict[str, BaseModel] = {
    "case": CASE,
    "case with everything": Case(
        id="module/x/full",
        kind="mlp",
        level="L1",
        topic="mlp",
        purpose="Größer als 1 → ∞.",
        hunts=["a-bug"],
        links=["https://example.org/1"],
        profiles=["f32", "bf16"],
        inputs=TensorFile(file="inputs.safetensors", sha256="2" * 64),
        params={"eps": 1e-6, "nested": {"window": None, "kinds": ["a", "b"]}},
        golden=FILE,
        golden_f32=FILE,
        taps=[TAP, TAP.model_copy(update={"name": "z", "cls": "exact", "dtype": "I32", "parents": ["y"]})],
        provenance=PROVENANCE.model_copy(update={"agreement_unlifted": 3e-8}),
    ),
    "case that points": Case(
        id="forward/m/uniform-l9/padded",
        kind="forward",
        level="L3",
        topic="decode",
        model="m",
        purpose="Some.",
        plan=Plan(steps=[8, 1], left_pad=[0, 3]),
        plan_name="padded",
        golden=GoldenPointer(case="forward/m/uniform-l19/no-cache", rows=[0, 9]),
        mask="valid",
        provenance=PROVENANCE,
    ),
    "case without a cache": Case(
        id="forward/m/x",
        kind="forward",
        level="L2",
        topic="logits",
        purpose="",
        plan=Plan(),
        plan_name="no-cache",
        golden=FILE,
        taps=[TAP],
        provenance=PROVENANCE,
    ),
    "card": ModelCard(
        id="e2b-mini",
        member="google/x",
        purpose="Some.",
        overrides={"layer_types": ["full_attention"], "num_experts": None},
        tensors=3,
        parameters=2**33,
        redundant_shared_kv=True,
        acceptance={"f32": 1e-6},
    ),
    "floors": Floors(
        profile="bf16",
        variants=[Variant(name="torch eager", family="torch", version="2")],
        seeds=8,
        command="make",
        leave_one_family_out={"torch": 1.5},
        floors={"module/x/y": {"y": [1e-7, 2e-7]}},
    ),
    "policy": Fixtures().policy,
}


# --- JSON


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_every_model_survives_a_round_trip_and_refuses_unknown_keys(value: BaseModel, tmp_path: Path) -> None:
    path = tmp_path / "some" / "value.json"
    write_model(path, value)
    assert read_model(path, type(value)) == value
    raw = json.loads(path.read_text())
    assert raw["format"] == "1.0"
    path.write_text(json.dumps(raw | {"surprise": 1}))
    with pytest.raises(FixtureError, match="Extra inputs are not permitted at surprise"):
        read_model(path, type(value))
    with pytest.raises(ValidationError, match="frozen"):
        value.format = "1.0"  # type: ignore[attr-defined]  # every one of them has it


def test_unknown_keys_are_refused_at_every_depth() -> None:
    def insert(raw: Any, at: tuple[str | int, ...]) -> Any:
        for key in at:
            raw = raw[key]
        raw["surprise"] = 1

    whole = VALUES["case with everything"].model_dump(by_alias=True)
    for at in (("taps", 0), ("golden",), ("golden_f32",), ("inputs",), ("provenance",)):
        raw = json.loads(json.dumps(whole))
        Case.model_validate(raw)
        insert(raw, at)
        with pytest.raises(ValidationError, match=r"surprise\n +Extra inputs are not permitted"):
            Case.model_validate(raw)


BAD_CASES: dict[str, tuple[dict[str, Any], str]] = {
    "id with capitals": ({"id": "Module/x"}, "String should match pattern"),
    "id of one part": ({"id": "module"}, "String should match pattern"),
    "id that climbs": ({"id": "module/../x"}, "String should match pattern"),
    "newline after the id": ({"id": "module/x\n"}, "String should match pattern"),
    "unknown kind": ({"kind": "attention_v2"}, "Input should be 'forward'"),
    "format of tomorrow": ({"format": "2.0"}, "Input should be '1.0'"),
    "digest too short": ({"golden": {"file": "a", "sha256": "ab"}}, "String should match pattern"),
    "no taps": ({"taps": []}, "a case with its own golden lists its taps"),
    "plan of a module": ({"plan": {}}, "forward cases have a plan and no other case has one"),
    "forward without a plan": ({"kind": "forward"}, "forward cases have a plan and no other case has one"),
    "name of no plan": ({"plan_name": "no-cache"}, "a plan has a name, and a name without a plan means nothing"),
    "taps of another's golden": (
        {"golden": {"case": "a/b", "rows": [0, 1]}},
        "a case that points into another golden inherits that case's taps and lists none",
    ),
    "axis without a size": (
        {"taps": [TAP.model_dump(by_alias=True) | {"axes": ["L"]}]},
        "1 axes for a shape of 2",
    ),
    "step of no token": ({"kind": "forward", "plan": {"steps": [3, 0]}}, "greater than or equal to 1"),
}


@pytest.mark.parametrize(("change", "message"), BAD_CASES.values(), ids=BAD_CASES.keys())
def test_bad_cases_are_refused(change: dict[str, Any], message: str) -> None:
    raw = CASE.model_dump(by_alias=True)
    assert Case.model_validate(raw) == CASE
    with pytest.raises(ValidationError, match=message):
        Case.model_validate(raw | change)


def one_line(error: FixtureError, path: Path, *parts: str) -> bool:
    text = str(error)
    assert text.startswith(f"{path}: got ")
    assert "\n" not in text
    assert ", expected " in text
    assert "; " in text.partition(", expected ")[2]  # the cure
    assert all(part in text for part in parts), text
    return (error.path, error.got in text, error.expected in text, error.cure in text) == (str(path), True, True, True)


BAD_JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Expecting value"),
    "garbage": (b"\xff\xfe\x00", "decode"),
    "cut short": (b'{"format": "1.0", ', "Expecting property name"),
    "too deep": (b"[" * 100_000, "recursion"),
    "a list": (b"[]", "Input should be a valid dictionary"),
    "NaN": (canonical_json(VALUES["policy"].model_dump()).replace(b"0.1,", b"NaN,", 1), "NaN, which is no JSON number"),
    "missing key": (b'{"format": "1.0"}', "Field required at floor_factor"),
}


@pytest.mark.parametrize(("data", "got"), BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_is_told_in_one_line(data: bytes, got: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(data)
    with pytest.raises(FixtureError) as caught:
        read_model(path, Policy)
    assert one_line(caught.value, path, got, "expected a Policy of the fixture format")


def test_json_is_canonical() -> None:
    a, b = {"b": 1, "a": {"d": 2.5, "c": "ä"}}, {"a": {"c": "ä", "d": 2.5}, "b": 1}
    assert canonical_json(a) == canonical_json(b) == '{\n "a": {\n  "c": "ä",\n  "d": 2.5\n },\n "b": 1\n}\n'.encode()
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="Out of range float values"):
            canonical_json({"x": value})


# --- files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.bin"
    write_atomic(path, b"old")
    assert path.stat().st_mode & 0o777 == 0o644

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    with pytest.raises(TypeError):
        write_atomic(path, "no bytes")  # type: ignore[arg-type]  # fails in the middle of writing
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


# --- tensors


def header(entries: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + payload


def whole() -> bytes:
    return tensors.encode({"a": np.arange(6.0).reshape(2, 3), "b": np.array([1, 2], np.int32)})


BAD_TENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes that safetensors cannot read"),
    "garbage": (b"not a tensor file at all", "24 bytes that safetensors cannot read"),
    "truncated": (whole()[:-5], "cannot read"),
    "cut in the header": (whole()[:20], "cannot read"),
    "two bytes too many": (whole() + b"xx", "cannot read"),
    "unknown dtype": (
        header({"odd": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"ab"),
        "dtype F8_E4M3 in tensor odd, expected one of F64, F32, F16, BF16, I64, I32, U8",
    ),
    "no dtype": (header({"odd": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"), "cannot read"),
    "shape that overflows": (
        header({"odd": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, b"abcd"),
        "cannot read",
    ),
}


@pytest.mark.parametrize(("data", "got"), BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_broken_tensor_files_are_told_in_one_line(data: bytes, got: str, tmp_path: Path) -> None:
    path = tmp_path / "expected.safetensors"
    path.write_bytes(data)
    with pytest.raises(FixtureError) as caught:
        tensors.read(path)
    assert one_line(caught.value, path, got)


def test_unreadable_files_are_told_in_one_line(tmp_path: Path) -> None:
    for path, reason in {tmp_path / "none.safetensors": "No such file", tmp_path: "Is a directory"}.items():
        with pytest.raises(FixtureError) as caught:
            tensors.read(path)
        assert one_line(caught.value, path, reason, "expected a readable file", "git checkout")


@given(st.binary(max_size=120), st.integers(0, 119))
def test_no_damage_to_a_tensor_file_raises_anything_else(noise: bytes, at: int) -> None:
    good = whole()
    damaged = good[:at] + noise + good[at + len(noise) :]
    fault, dtypes = "", set()
    try:
        dtypes = {array.dtype for array in tensors.decode(damaged, "file").values()}
    except FixtureError as error:
        fault = str(error)
    assert bool(fault) != bool(dtypes)
    assert "\n" not in fault
    assert dtypes <= set(tensors.DTYPES.values())


def test_tensors_survive_to_the_bit_in_every_dtype(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {name: rng.integers(0, 200, (3, 5)).astype(dtype) for name, dtype in tensors.DTYPES.items()}
    given |= {"scalar": np.array(2.5), "empty": np.zeros((0, 3), np.float32), "strided": np.arange(12.0)[::2]}
    given["transposed"] = np.arange(6.0).reshape(2, 3).T
    tensors.write(tmp_path / "x.safetensors", given)
    back = tensors.read(tmp_path / "x.safetensors")
    assert back.keys() == given.keys()
    for name, array in given.items():
        assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)
        assert back[name].tobytes() == array.tobytes(), name
    assert {name: tensors.dtype_name(back[name]) for name in tensors.DTYPES} == {name: name for name in tensors.DTYPES}


def test_every_bf16_pattern_survives_and_widens_exactly() -> None:
    patterns = np.arange(2**16, dtype=np.uint16)
    back = tensors.decode(tensors.encode({"x": patterns.view(ml_dtypes.bfloat16)}), "file")["x"]
    assert np.array_equal(back.view(np.uint16), patterns)
    wide = (patterns.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(back.astype(np.float32), wide, equal_nan=True)


def test_equal_tensors_give_equal_bytes_whatever_their_order() -> None:
    a, b = np.arange(3.0), np.arange(4, dtype=np.int32)
    assert tensors.encode({"a": a, "b": b}) == tensors.encode({"b": b, "a": a})
    assert tensors.tensor_digest(np.arange(4.0)[::2]) == sha256(struct.pack("<2d", 0.0, 2.0))
    with pytest.raises(ValueError, match="dtype complex128 has no name"):
        tensors.dtype_name(np.zeros(1, complex))


# --- layout


def test_rows_are_cut_along_l_and_s() -> None:
    probs = np.arange(2 * 4 * 4).reshape(1, 2, 4, 4)
    assert np.array_equal(select_rows(probs, ["B", "H", "L", "S"], slice(1, 3), [0]), probs[:, :, 1:3, :3])
    hidden = np.arange(8).reshape(1, 4, 2)
    assert np.array_equal(select_rows(hidden, ["B", "L", "D"], slice(0, 3), [0]), hidden[:, :3])


def test_rows_of_a_batch_stand_behind_their_pads() -> None:
    keys = 1 + np.arange(2 * 3 * 2).reshape(1, 2, 3, 2)  # B K L E
    got = select_rows(keys, ["B", "K", "L", "E"], slice(0, 3), [0, 2])
    assert got.shape == (2, 2, 3, 2)
    assert np.array_equal(got[0], keys[0])
    assert not got[1, :, :2].any()
    assert np.array_equal(got[1, :, 2], keys[0, :, 0])
    one = select_rows(keys, ["B", "K", "L", "E"], slice(0, 3), [1])  # a padded batch of one row
    assert np.array_equal(one[0, :, 1:], keys[0, :, :2])


def test_masks_spread_over_the_axes_b_and_l() -> None:
    mask = np.array([[1, 1, 1], [0, 0, 1]], np.uint8)
    spread = spread_mask(mask, ["B", "H", "L", "E"], (2, 4, 3, 5))
    assert spread is not None
    assert (spread.shape, spread.dtype) == ((2, 4, 3, 5), np.dtype(bool))
    for index in np.ndindex(2, 4, 3, 5):
        assert spread[index] == bool(mask[index[0], index[2]])
    assert spread_mask(mask, ["N"], (2,)) is None
    assert spread_mask(None, ["B", "L"], (2, 3)) is None


# --- JSON Schema


def test_stored_schemas_are_those_of_the_models(tmp_path: Path) -> None:
    stored = {path.name: path.read_bytes() for path in (Fixtures().root / "schema").iterdir()}
    assert stored == schema_files()
    names = {*SCHEMAS, "protocol-requests", "protocol-answers"}
    assert stored.keys() == {f"{name}.schema.json" for name in names}
    write_schemas(tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "schema").iterdir()} == stored


def test_every_stored_file_validates_against_its_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    root = Fixtures().root
    checks: dict[str, Callable[[Any], None]] = {}
    for name in SCHEMAS:
        schema = json.loads((root / "schema" / f"{name}.schema.json").read_bytes())
        jsonschema.Draft202012Validator.check_schema(schema)
        checks[name] = jsonschema.Draft202012Validator(schema).validate
    found = {
        "case": list((root / "cases").rglob("case.json")),
        "model": list((root / "models").glob("*/model.json")),
        "floors": [path for path in (root / "floors").glob("*.json") if path.name != "policy.json"],
        "policy": [root / "floors" / "policy.json"],
        "graph": list((root / "graph").glob("*.json")),
        "mistake": list((root / "mistakes").glob("*.json")),
        "profile": list((root / "profiles").glob("*.json")),
        "conversation": list((root / "prompts" / "chat").glob("*.json")),
        "texts": list((root / "prompts" / "text").glob("*.json")),
        "prompt_facts": [root / "prompts" / "facts.json"],
    }
    assert found.keys() == SCHEMAS.keys()
    for name, paths in found.items():
        assert paths, name
        for path in paths:
            raw = json.loads(path.read_bytes())
            checks[name](raw)
        with pytest.raises(jsonschema.ValidationError):
            checks[name](raw | {"format": "2.0"})


def test_the_axis_of_the_tokens_is_l_or_that_of_keys_alone() -> None:
    assert row_axis(["B", "H", "L", "S"]) == 2
    assert row_axis(["B", "K", "S", "E"]) == 2
    assert row_axis(["X"]) is None
    keys = np.arange(24.0).reshape(1, 2, 6, 2)
    assert np.array_equal(select_rows(keys, ["B", "K", "S", "E"], slice(0, 4), [0]), keys[:, :, :4])
