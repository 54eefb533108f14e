"""Module cases: the donors of KV-shared layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reference.cases.draft import Draft, tap
from reference.cases.modules.module_draft import module_draft
from reference.family import FAMILY
from reference.models import MODELS


def drafts() -> Iterator[Draft]:
    """The cases of donors."""
    for member in ("e2b", "e4b", "31b"):
        config = dict(FAMILY[member].text_config)
        yield _donor_draft(member, f"Which layer's keys and values each layer of {member.upper()} uses.", config)
    irregular = dict(MODELS["trap-irregular"].text_config)
    yield _donor_draft("irregular", "Donors where the last layer before the shared range is full.", irregular)


def _donor_draft(name: str, purpose: str, config: dict[str, Any]) -> Draft:
    return module_draft(
        f"shared-kv-donors/{name}",
        purpose,
        {},
        params={"config": config},
        taps=[tap("donors", "N")],
    )
