"""The stored JSON Schema files are those of the models, and every stored file fits its schema."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemma4_contract import Fixtures
from gemma4_contract.schema import SCHEMAS, schema_files, write_schemas
from gemma4_contract.store import LOCAL


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
        "local_floors": list((root / "floors" / LOCAL).glob("*.json")),
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
