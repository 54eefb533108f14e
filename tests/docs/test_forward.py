"""docs/FORWARD.md names every tap of every model."""

from __future__ import annotations

import re

from gemma4_contract import Fixtures
from tests.support import ROOT

TEXT = (ROOT / "docs" / "FORWARD.md").read_text(encoding="utf-8")


def test_every_tap_is_named() -> None:
    fixtures = Fixtures()
    taps = {tap.name for case in fixtures.cases() if case.kind == "forward" for tap in fixtures.taps(case)}
    named = set(re.findall(r"`([\w.]+)`", TEXT))
    assert len(taps) > 100
    for tap in taps:
        short = re.sub(r"^model\.layers\.\d+\.(self_attn\.)?", "", tap)
        assert short in named or tap in named, tap
