"""The JSON documents of the fixtures are strict and canonical."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
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
)
from gemma4_contract.documents import read_model, write_model
from gemma4_contract.files import canonical_json
from gemma4_contract.models import Variant
from tests.support.fixture_errors import one_line

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
