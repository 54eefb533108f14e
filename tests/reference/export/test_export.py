"""The export replaces all that it makes, or nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma4_contract import Fixtures
from reference.export import exporter
from tests.support.exports import GOLDEN, MODEL, PADDED, few, quiet, snapshot


def test_an_interrupted_export_leaves_no_trace(small: Path) -> None:
    before = snapshot(small)

    def interrupt(done: int, total: int, what: str) -> None:
        quiet(done, total, what)
        if done == 5:
            beside = [path.name for path in small.parent.iterdir() if path != small]
            assert [name.startswith(".fixtures-") for name in beside] == [True]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exporter.export(small, interrupt)
    assert snapshot(small) == before
    assert list(small.parent.iterdir()) == [small]

    def fail_on(made: Path) -> None:
        assert (made / "cases" / GOLDEN / "case.json").exists()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), exporter.staged(small, quiet) as made:
        fail_on(made)
    assert snapshot(small) == before
    assert list(small.parent.iterdir()) == [small]


@pytest.mark.parametrize("failing", range(6))
def test_an_export_that_is_stopped_while_it_swaps_changes_nothing(
    small: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    before = snapshot(small)
    rename, calls = exporter.os.rename, 0

    def interrupted(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(exporter.os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exporter.export(small, quiet)
    assert snapshot(small) == before
    assert list(small.parent.iterdir()) == [small]


def cards(root: Path) -> dict[Path, dict[str, Any]]:
    """The models' cards, less what was measured: another processor may round its last digit in another way."""
    found = {path: json.loads(path.read_text()) for path in root.glob("models/*/model.json")}
    return {path: {key: value for key, value in card.items() if key != "acceptance"} for path, card in found.items()}


def test_an_export_replaces_what_it_makes_and_keeps_the_floors(small: Path) -> None:
    before, described = snapshot(small), cards(small)
    (small / "cases/module/stale").mkdir()
    (small / "cases/module/stale/case.json").write_text("{}")
    (small / "models" / MODEL / "config.json").write_text("{}")
    (small / "SHA256SUMS").write_text("")
    steps: list[tuple[int, int, str]] = []
    exporter.export(small, lambda *step: steps.append(step))
    after = snapshot(small)
    measured = ("case.json", "model.json", "SHA256SUMS")
    goldens = {name for name in before if "expected" in name or name.endswith(measured)}
    assert after.keys() == before.keys()
    assert {name: after[name] for name in after if name not in goldens} == {
        name: before[name]
        for name in before
        if name not in goldens  # goldens may differ in a last bit
    }
    assert cards(small) == described
    assert described
    assert Fixtures(small).verify() == []
    assert list(small.parent.iterdir()) == [small]
    count = len(few()) + 2
    assert [step[:2] for step in steps] == [(done, count) for done in range(count + 1)]
    names = [name for _, _, name in steps]
    assert (names[0], names[-1]) == (MODEL, "done")
    assert names.index(GOLDEN) < names.index(PADDED)  # owners come first
