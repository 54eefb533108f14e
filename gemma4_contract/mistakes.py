"""A known mistake of ports as data: `mistakes/<id>.json`, made from the catalogue of mutants."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gemma4_contract.documents import Document
from gemma4_contract.models import CaseId
from gemma4_contract.profiles import ProfileId


class Mistake(Document):
    """One known mistake: what the wrong code does, how it shows, how it is cured, and which cases catch it."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)+$")]
    area: str = Field(description="The part of a decoder that it is made in.")
    does: str = Field(description="What the wrong code does.")
    symptom: str = Field(description="What its user sees.")
    cure: str = Field(description="What right code does.")
    first_tap: str = Field(
        description="The tap where it is first seen: a full name, a name below the layer, the tap of a module case, or "
        "(stops) where the port does not run at all; `a or b` where the model decides which comes first."
    )
    layers: str = Field(description="The layers that it touches.")
    links: list[str] = Field(default=[], description="Addresses of public reports and cures.")
    equivalent_in: dict[ProfileId, str] = Field(
        default={}, description="Profile -> the proof that it changes nothing there that rounding does not."
    )
    survives_in: dict[ProfileId, str] = Field(
        default={}, description="Profile -> the reason why no case catches it there, although it changes something."
    )
    caught_by: list[CaseId] = Field(
        default=[], description="The cases that were made for it, the smallest first; each catches it alone."
    )
