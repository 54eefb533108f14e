"""Goldens of models at full size: two derivations agree on them, and they hold what only size shows."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.cli import app
from gemma4_contract import Fixtures, tensors
from gemma4_contract.full_size import at_full_size
from reference.export import full_size as exporter
from reference.export import full_size_transformers
from reference.streaming.source import from_checkpoint
from reference.streaming.stored_taps import StoredTap
from tests.support.small_full_size import run


def test_both_derivations_make_the_golden(places: tuple[Path, Path], tmp_path: Path) -> None:
    root, cache = places
    case_id = "forward/experts-full/text-l89/no-cache"
    stored = root / "full" / "cases" / case_id
    named = ["--checkpoint", str(cache / "full" / "experts-full"), "--goldens"]
    for by, derivations in (("both", 2), ("transformers", 1)):
        ended = run(app, ["export", *named, str(tmp_path / by), "--by", by])
        assert ended.exit_code == 0, ended.output
        made = tmp_path / by / "cases" / case_id
        choices, again = (tensors.read(folder / "choices.safetensors") for folder in (stored, made))
        assert choices.keys() == again.keys()
        for name, value in choices.items():
            assert (
                np.allclose(again[name], value, rtol=1e-6, atol=1e-12)
                if "margin" in name
                else (np.array_equal(again[name], value))
            )
        provenance = json.loads((made / "case.json").read_text())["provenance"]
        assert len(provenance["derivations"]) == derivations
        assert provenance.get("agreement", 0) <= 1e-12
        golden, again = (tensors.read(folder / "expected_f32.safetensors") for folder in (stored, made))
        assert golden.keys() == again.keys()
        assert all(np.allclose(golden[name], again[name], rtol=1e-6, atol=1e-7) for name in golden)
        if by == "both":  # the oracle's, to the bit
            assert all(np.array_equal(golden[name], again[name]) for name in golden)


def test_derivations_that_differ_are_no_golden(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(*given: Any) -> dict[str, StoredTap]:
        made = right(*given)
        one = made["model.layers.3.output"]
        return made | {"model.layers.3.output": replace(one, values=one.values * (1 + 1e-11))}

    right = full_size_transformers.transformers_taps
    monkeypatch.setattr(full_size_transformers, "transformers_taps", shifted)
    named = ["--checkpoint", str(places[1] / "full" / "tiny-full"), "--goldens", str(tmp_path / "goldens")]
    ended = run(app, ["export", *named, "--by", "both"])
    assert ended.exit_code == 1
    (left,) = (tmp_path / "goldens").iterdir()
    assert left.suffix == ".state"  # the oracle's pass, to go on from


def test_a_pass_over_other_weights_is_not_gone_on_with(places: tuple[Path, Path], tmp_path: Path) -> None:
    """The checkpoint was replaced between an interruption and the next call: no layer of the old one counts."""
    folder, fixtures = tmp_path / "tiny-full", Fixtures(places[0])
    shutil.copytree(places[1] / "full" / "tiny-full", folder)
    held = dict(tensors.read(folder / "model.safetensors"))
    tensors.write(folder / "model.safetensors", held)  # so that the file that replaces it is of the same size

    def stop(*told: Any) -> None:
        if told[-1] == "layer 5":
            raise KeyboardInterrupt

    def export(root: Path, progress: Any = lambda *_: None) -> Any:
        exporter.export(from_checkpoint(folder), fixtures, root, root, progress)
        return tensors.read(root / "cases" / "forward/tiny-full/text-l89/no-cache" / "expected_f32.safetensors")

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "interrupted", stop)
    name = "model.language_model.layers.0.input_layernorm.weight"
    tensors.write(folder / "model.safetensors", held | {name: -held[name]})
    got, expected = export(tmp_path / "interrupted"), export(tmp_path / "fresh")
    assert all(np.array_equal(got[tap], value) for tap, value in expected.items())


def test_a_model_that_echoes_its_input_is_no_golden(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_echo", lambda *_: 0.2)
    before = (places[0] / "SHA256SUMS").read_bytes()
    assert run(app, ["export", "--model", "tiny-full", "--fixtures-dir", str(places[0])]).exit_code == 1
    assert (places[0] / "SHA256SUMS").read_bytes() == before


def test_goldens_hold_what_only_size_shows() -> None:
    """Rows after 2^31 in the table, both sides of the window's edge, and channels of the whole head."""
    full = at_full_size(Fixtures(), Path())
    case = full.case("forward/e2b-full/text-l593/no-cache")
    picks = {tap.name: tap.picks for tap in case.taps}
    rows = picks["model.ple"].taken["L"]  # type: ignore[union-attr]
    assert isinstance(rows, list)
    ids = full.inputs(case)["ids"][0]
    assert max(int(ids[row]) * 35 * 256 for row in rows) > 2**31
    assert {511, 512} <= set(rows)
    head = picks["model.layers.4.self_attn.q_rope"]
    assert head is not None
    assert head.whole[-1] == 512
    assert max(head.indices(["B", "H", "L", "E"])[-1]) > 500
    assert np.isfinite(full.golden(case)["logits"]).all()
