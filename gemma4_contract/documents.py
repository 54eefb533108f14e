"""The JSON documents of the fixtures: their base class, and how they are read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gemma4_contract import tensors
from gemma4_contract.errors import FixtureError
from gemma4_contract.files import canonical_json, write_atomic

RESTORE = "restore the fixtures (git checkout fixtures/) or regenerate them with `gemma4-conformance export`"
_Model = TypeVar("_Model", bound=BaseModel)


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # a command reads few kinds


class Document(Strict):
    """A whole JSON file of the fixtures."""

    format: Literal["1.0"] = "1.0"


def default_root() -> Path:
    """The `fixtures/` folder: beside the packages in a checkout, inside `gemma4_contract` in a wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "fixtures"
    return checkout if checkout.is_dir() else package / "fixtures"


def read_model(path: Path, model: type[_Model]) -> _Model:
    """Read a JSON file as `model`; FixtureError, naming the key at fault, if it does not fit."""
    data = tensors.read_bytes(path)
    try:
        return model.model_validate(json.loads(data, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:  # json's and pydantic's errors are ValueErrors
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole file"
            got = f"{first['msg']} at {where}"
        else:
            got = str(error)
        schema = f"a {model.__name__} of the fixture format (see fixtures/schema/)"
        raise FixtureError(path, got=got, expected=schema, cure=RESTORE) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name}, which is no JSON number")


def write_model(path: Path, value: Document) -> None:
    """Write a document as canonical JSON, atomically; default values are left out, except the version of the format."""
    dumped = value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    write_atomic(path, canonical_json(dumped | {"format": value.format}))
