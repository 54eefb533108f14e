"""The files of cases and checkpoints that an export writes."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma4_contract import Fixtures, Plan, Policy, tensors
from reference.export import exporter
from reference.export.checkpoint import model_weights, write_checkpoint
from reference.export.errors import ExportError
from reference.models import MODELS
from tests.support.exports import GOLDEN, MODEL, NORM, PADDED, ROUNDED, write


def test_goldens_are_stored_in_the_dtypes_of_their_kinds(tmp_path: Path) -> None:
    write(tmp_path, NORM, ROUNDED, "module/ple-index/first", "layer/31b-mini/sliding-own", GOLDEN)
    shutil.copytree(Fixtures().root / "profiles", tmp_path / "profiles")  # which a case names
    fixtures = Fixtures(tmp_path)
    stored = {}
    for case_id in fixtures.case_ids:
        case = fixtures.case(case_id)
        fixtures.golden(case)
        stored[case_id] = (
            {tap.dtype for tap in case.taps},
            {tap.cls for tap in case.taps},
            case.golden_f32 is not None,
        )
        assert case.provenance.agreement is not None
        assert case.provenance.agreement_unlifted is not None
        assert case.provenance.command == "gemma4-conformance export"
    assert stored == {
        NORM: ({"F64"}, {"floor"}, True),
        ROUNDED: ({"F64"}, {"exact"}, True),
        "module/ple-index/first": ({"U8"}, {"exact"}, False),
        "layer/31b-mini/sliding-own": ({"F32"}, {"floor"}, False),
        GOLDEN: ({"F32"}, {"floor"}, False),
    }
    exact = fixtures.golden(fixtures.case(ROUNDED))["y"]
    inputs = fixtures.inputs(fixtures.case(ROUNDED))
    rounded = (inputs["table"][inputs["ids"]] * np.float32(39.25)).view(np.uint32)  # 39.25: bf16 of sqrt(1536)
    assert ((exact.astype(np.float32).view(np.uint32) & 0xFFFF) == 0).all()  # on the bf16 grid
    assert np.abs((exact.astype(np.float32).view(np.uint32) >> 16).astype(int) - (rounded >> 16)).max() <= 1


@pytest.mark.parametrize("model_id", [MODEL, "e4b-mini"])
def test_checkpoints_hold_the_rule_under_the_layouts_names(model_id: str, tmp_path: Path) -> None:
    model = MODELS[model_id]
    built = model_weights(model)
    write_checkpoint(tmp_path, model.config_json, model.laid_out(built))
    stored = tensors.read(tmp_path / "model.safetensors")
    prefix = "model.language_model." if model_id == "e4b-mini" else "model."
    assert stored.keys() == {prefix + name.removeprefix("model.") for name in built}
    for name, value in built.items():
        tensor = stored[prefix + name.removeprefix("model.")]
        assert tensors.dtype_name(tensor) == "BF16"
        assert np.array_equal(tensor.astype(np.float64), value)
    redundant = f"{prefix}layers.11.self_attn.v_proj.weight" in stored
    assert redundant == (model_id == "e4b-mini")
    assert json.loads((tmp_path / "config.json").read_bytes()) == model.config_json
    committed = Fixtures().model_dir(model_id)
    assert (committed / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_a_model_beyond_its_limits_is_not_written(tmp_path: Path) -> None:
    strict = Policy.model_validate(Fixtures().policy.model_dump() | {"acceptance_bf16": 1e-6})
    with pytest.raises(ExportError, match=f"^{MODEL}: got bf16 .*, expected at most 1.00e-06"):
        exporter._write_model(tmp_path / MODEL, MODELS[MODEL], strict)
    assert not (tmp_path / MODEL).exists()


def test_plans_of_pointers_are_written_as_pointers(tmp_path: Path) -> None:
    write(tmp_path, GOLDEN, PADDED)
    fixtures = Fixtures(tmp_path)
    raw: Mapping[str, Any] = json.loads((tmp_path / "cases" / PADDED / "case.json").read_bytes())
    assert raw["golden"] == {"case": GOLDEN, "rows": [0, 19]}
    assert raw["mask"] == "valid"
    assert "taps" not in raw
    assert fixtures.case(PADDED).plan == Plan(steps=[15, 1, 1, 1, 1], left_pad=[0, 3, 12])
    assert sorted(path.name for path in (tmp_path / "cases" / PADDED).iterdir()) == ["case.json", "inputs.safetensors"]
