"""Floors of models at full size."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.calibration.error_table import ErrorTable
from conformance.calibration.full_size_floors import _add_rows
from conformance.cli import app
from conformance.judging.question import Question
from gemma4_contract import Fixtures
from gemma4_contract.full_size import at_full_size
from gemma4_contract.models import Variant
from reference import full_size
from reference.streaming.stored_taps import StoredTap
from tests.support.small_full_size import OWNER, TINY, run


def stored_floors(root: Path) -> Any:
    return json.loads((root / "full" / "floors" / "f32.json").read_text())


def test_floors_of_other_models_stay(places: tuple[Path, Path]) -> None:
    table = stored_floors(places[0])
    assert [case.split("/")[1] for case in table["floors"]] == ["experts-full", "tiny-full"]
    assert all(0 < rms < 1e-4 for name, (rms, _) in table["floors"][OWNER].items())
    assert {one["name"] for one in table["variants"]} >= {"oracle fused", "oracle sequential", "mlx_impl"}
    ratios = table["leave_one_family_out"]  # of the mixture none: families may choose other experts
    assert sorted(ratios) == ["tiny-full/mlx", "tiny-full/numpy", "tiny-full/torch"]
    assert all(0.3 < ratio < 3 for ratio in ratios.values())


def test_the_first_tokens_alone_raise_floors_and_lower_none(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_size, "FULL_SIZE", TINY)
    root = tmp_path / "fixtures"
    shutil.copytree(places[0], root)
    table = stored_floors(root)
    measured = table["floors"][OWNER]
    low, high = "model.layers.3.output", "model.layers.4.output"
    for name, factor in ((low, 1e-3), (high, 1e3)):
        measured[name] = [factor * figure for figure in measured[name]]
    path = root / "full" / "floors" / "f32.json"
    path.write_text(json.dumps(table))
    Fixtures(root).write_sums()
    named = ["--model", "tiny-full", "--profile", "f32", "--fixtures-dir", str(root)]
    ended = run(app, ["floors", *named, "--first-only"])
    assert ended.exit_code == 0, ended.output
    after = stored_floors(root)["floors"]
    assert all(figure > 100 * before for figure, before in zip(after[OWNER][low], measured[low], strict=True))
    assert after[OWNER][high] == measured[high]
    assert after["forward/experts-full/text-l89/no-cache"] == table["floors"]["forward/experts-full/text-l89/no-cache"]
    ended = run(app, ["floors", *named])  # measured anew, nothing of it is kept
    assert stored_floors(root) == stored_floors(places[0])


def test_a_row_alone_is_an_input_of_its_own(places: tuple[Path, Path]) -> None:
    """Ten rows of values near 1, one of which errs, and is a hundredth of the others."""
    full = at_full_size(Fixtures(places[0]), places[1] / "full")
    name = "model.layers.3.output"
    whole = Question.of(full, OWNER)
    whole = replace(whole, taps=[tap for tap in whole.taps if tap.name == name])
    golden = np.ones((1, 10, 4))
    golden[0, 7] = 0.01
    answer = golden.copy()
    answer[0, 7, 2] += 1e-5
    kept = [{name: StoredTap(whole=(1, 10, 4), indices={}, values=value, rms=1.0)} for value in (golden, answer)]
    table = ErrorTable()
    _add_rows(table, whole, kept[0], Variant(name="v", family="f", version=""), kept[1])
    worst = table.worst[OWNER, name]["f"]
    assert (worst.rms, worst.max) == pytest.approx((5e-4, 1e-3))
