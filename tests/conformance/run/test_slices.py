"""mlx_impl at the real widths: slices of the five members, their weights written for the time of a test."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from conformance.adapters.mlx_impl.adapter import MlxImplAdapter
from conformance.judging.judge import Judge
from gemma4_contract import Fixtures, ModelCard
from gemma4_contract.documents import read_model
from gemma4_contract.full_size import at_full_size
from reference.export.materialize import materialize
from reference.full_size import SLICES


def quiet(*_: object) -> None:
    pass


@pytest.mark.slow  # real widths: reference BLAS, which MLX brings on Linux, makes 1.3 GFLOP/s
@pytest.mark.parametrize("name", SLICES)
def test_mlx_impl_meets_the_goldens_of_a_slice(name: str, tmp_path: Path) -> None:
    full = at_full_size(Fixtures(), tmp_path)
    parameters = read_model(full.root / "models" / name / "model.json", ModelCard).parameters
    if psutil.virtual_memory().available < 7 * parameters:  # stored in two bytes, loaded into four
        pytest.skip(f"needs {7 * parameters / 1e9:.0f} GB of free memory")
    materialize(SLICES[name], tmp_path / name, shards=1, bits=None, progress=quiet)
    judge = Judge(full, MlxImplAdapter(), "f32")
    asked = [case.id for case in full.cases() if case.model == name]
    assert len(asked) == (4 if name == "e2b-window-slice" else 3)
    if name == "e2b-window-slice":  # of 525 tokens once: MLX's products on the processor are slow
        asked = ["forward/e2b-window-slice/text-l525/no-cache"]
    for case_id in asked:
        verdict = judge.judge(case_id)
        assert verdict.outcome == "pass", verdict.first_divergence or verdict.note
    (tmp_path / name / "model.safetensors").unlink()  # gigabytes
