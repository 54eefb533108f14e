"""JSON Schema files for readers in every language, made from the models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Union

from pydantic import BaseModel, TypeAdapter

from gemma4_contract import protocol
from gemma4_contract.files import canonical_json, write_atomic
from gemma4_contract.graph import Graph
from gemma4_contract.mistakes import Mistake
from gemma4_contract.models import Case, Floors, LocalFloors, ModelCard, Policy
from gemma4_contract.profiles import Profile
from gemma4_contract.prompts import Conversation, PromptFacts, Texts

SCHEMAS: Mapping[str, type[BaseModel]] = {
    "case": Case,
    "model": ModelCard,
    "floors": Floors,
    "local_floors": LocalFloors,
    "policy": Policy,
    "graph": Graph,
    "mistake": Mistake,
    "profile": Profile,
    "conversation": Conversation,
    "texts": Texts,
    "prompt_facts": PromptFacts,
}


def schema_files() -> dict[str, bytes]:
    """File name -> bytes of each JSON Schema."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    files = {
        f"{name}.schema.json": canonical_json(dialect | model.model_json_schema(by_alias=True))
        for name, model in SCHEMAS.items()
    }
    for name, lines in (("requests", protocol.REQUESTS), ("answers", protocol.ANSWERS)):
        schema = TypeAdapter(Union[lines]).json_schema(by_alias=True)  # type: ignore[arg-type]  # noqa: UP007
        files[f"protocol-{name}.schema.json"] = canonical_json(dialect | schema)
    return files


def write_schemas(root: Path) -> None:
    """Write `schema/*.schema.json` under the fixtures folder."""
    for name, data in schema_files().items():
        write_atomic(root / "schema" / name, data)
