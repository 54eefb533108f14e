"""Profiles as data: the arithmetic that a run claims to compute in (`profiles/<id>.json`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from gemma4_contract.documents import RESTORE, Document, default_root, read_model
from gemma4_contract.errors import FixtureError

FOLDER = "profiles"
_PATTERN = r"^[a-z0-9][a-z0-9-]*$"
FloatDtype = Literal["F64", "F32", "BF16", "F16"]
"""A dtype as safetensors names it."""


class _Listed:
    """Writes the ids of the installed profiles into JSON Schema, where a pattern would say less."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "enum": list(installed_profiles())}


def _known(value: object, info: ValidationInfo) -> object:
    known = tuple((info.context or {}).get("profiles") or installed_profiles())
    if value not in known:
        *names, last = map(repr, known)
        expected = f"{', '.join(names)} or {last}" if names else last
        raise PydanticCustomError("unknown_profile", "Input should be {expected}", {"expected": expected})
    return value


ProfileId = Annotated[str, Field(pattern=_PATTERN), _Listed()]
"""The id of a profile. Whether there is such a profile is a question to the fixtures that are in use."""
KnownProfile = Annotated[str, BeforeValidator(_known), _Listed()]
"""The id of a profile that exists: one of `profiles` of the validation's context, of the installed ones without it."""


class Profile(Document):
    """The arithmetic that a run claims, and the floors that it is judged by (`profiles/<id>.json`)."""

    id: Annotated[str, Field(pattern=_PATTERN)]
    does: str = Field(description="What the arithmetic is, in plain sentences.")
    order: int = Field(description="Position in every list of profiles: exact ones first.")
    storage: FloatDtype = Field(description="Dtype of tensors between operations, as safetensors names it.")
    dtype: Literal["float64", "float32", "bfloat16", "float16"] = Field(
        description="The same dtype as config.json, PyTorch, MLX and NumPy name it."
    )
    accumulation: FloatDtype = Field(
        description="Dtype that products and sums accumulate in; they are rounded to `storage` once."
    )
    islands: FloatDtype = Field(description="Dtype that norms and softmax are computed in.")
    unit_roundoff: float = Field(description="Largest relative error of rounding to `storage`: half an ulp of 1.")
    smallest_normal: float = Field(description="Smallest normal number of `storage`; below it the ulp stays the same.")
    floors: str = Field(pattern=_PATTERN, description="Id of the profile whose table of floors judges this one.")


def read_profiles(root: Path) -> Mapping[str, Profile]:
    """The profiles of a folder of fixtures by id, exact ones first; FixtureError for the first that is at fault."""
    profiles, faults = _read(root)
    if faults:
        raise faults[0]
    return profiles


def profile_faults(root: Path) -> list[FixtureError]:
    """What is wrong with the profiles of a folder of fixtures."""
    return _read(root)[1]


@functools.cache
def installed_profiles() -> Mapping[str, Profile]:
    """The profiles of the installed fixtures by id, exact ones first."""
    return read_profiles(default_root())


def _read(root: Path) -> tuple[Mapping[str, Profile], list[FixtureError]]:
    found: list[Profile] = []
    faults: list[FixtureError] = []
    paths = {path.stem: path for path in sorted((root / FOLDER).glob("*.json"))}
    for name, path in paths.items():
        try:
            profile = read_model(path, Profile)
        except FixtureError as fault:
            faults.append(fault)
            continue
        if profile.id != name:
            faults.append(FixtureError(path, got=f"id {profile.id!r}", expected=f"its name {name!r}", cure=RESTORE))
        if profile.floors not in paths:
            expected = f"one of {', '.join(paths)}"
            faults.append(FixtureError(path, got=f"floors of {profile.floors!r}", expected=expected, cure=RESTORE))
        found.append(profile)
    return {profile.id: profile for profile in sorted(found, key=lambda profile: (profile.order, profile.id))}, faults
