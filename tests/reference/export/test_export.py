"""The export: goldens on which two derivations agree or none, all of it or nothing, and the check that tells damage."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma4_contract.tensors import Array

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma4_contract import Fixtures, Plan, Policy, tensors  # noqa: E402
from gemma4_contract.files import sha256  # noqa: E402
from gemma4_contract.schema import write_schemas  # noqa: E402
from reference.cases import Draft, all_drafts  # noqa: E402  (after importorskip)
from reference.export import agreement, derive, exporter, writer  # noqa: E402
from reference.export.check import check  # noqa: E402
from reference.export.checkpoint import model_weights, write_checkpoint  # noqa: E402
from reference.export.errors import ExportError  # noqa: E402
from reference.layouts import LAYOUTS  # noqa: E402
from reference.models import MODELS  # noqa: E402

Taps = dict[str, Array]

MODEL, LAYOUT = "trap-softcap", "layout-per-layer-config"
GOLDEN = f"forward/{MODEL}/uniform-l19/no-cache"
PADDED = f"forward/{MODEL}/uniform-l19/padded"
NORM, RING, ROUNDED = "module/rms-norm/weighted", "module/attention-core/ring", "module/embedding/rounded-scale-bf16"
FEW = ("module/rms-norm/", "module/softcap/", "module/embedding/rounded", "module/ple-index/", "module/mlp/")


@cache
def drafts() -> dict[str, Draft]:
    return {draft.id: draft for draft in all_drafts()}


def few() -> list[Draft]:
    """The forward cases of one trap and of one layout of it, and a few modules."""
    return [draft for draft in drafts().values() if draft.model in (MODEL, LAYOUT) or draft.id.startswith(FEW)]


BY_HAND = ("floors", "profiles")
"""What no export makes."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The part of the stored fixtures that an export of `few` makes, and an exporter that makes no more."""
    monkeypatch.setattr(exporter, "MODELS", {MODEL: MODELS[MODEL]})
    monkeypatch.setattr(exporter, "LAYOUTS", {LAYOUT: LAYOUTS[LAYOUT]})
    monkeypatch.setattr(exporter, "all_drafts", few)
    stored, root = Fixtures().root, tmp_path / "fixtures"
    for name in (
        *BY_HAND,
        "mistakes",
        f"models/{MODEL}",
        f"models/{LAYOUT}",
        *(f"cases/{draft.id}" for draft in few()),
    ):
        shutil.copytree(stored / name, root / name)
    write_schemas(root)
    Fixtures(root).write_sums()
    return root


def quiet(done: int, total: int, what: str) -> None:
    assert 0 <= done <= total
    assert what


def snapshot(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256(path.read_bytes()) for path in root.rglob("*") if path.is_file()}


# --- two derivations


def test_both_derivations_give_every_tap_of_every_kind_of_case() -> None:
    policy, seen = Fixtures().policy, set()
    for draft in drafts().values():
        if draft.model not in (None, MODEL, "31b-mini") or draft.pointer is not None:
            continue
        names = [tap.name for tap in draft.taps]
        by_oracle = derive.by_oracle(draft)
        assert list(by_oracle) == names, draft.id
        if draft.kind == "subgraph":
            continue  # tests/reference/test_subgraphs.py: there transformers gives all but a few
        for lifted in (True, False):
            theirs = derive.by_transformers(draft, lifted=lifted)
            assert theirs.keys() == set(names), draft.id
            # Left in float32, the frequency of the fastest pair turns a token at 131071 by a thousandth of a radian.
            limit = agreement.agreement_limit(policy, draft.inputs.get("positions")) if lifted else 2e-3
            figure, tap = agreement.worst(theirs, by_oracle)
            assert figure <= limit, (draft.id, tap, figure)
        seen.add(draft.kind)
    assert seen == {draft.kind for draft in drafts().values()} - {"attention", "subgraph"}


def perturbed(tap: str, factor: float, rows: slice = slice(None)) -> Callable[..., Taps]:
    """transformers with one tap off by a factor, in some rows of its batch and length only."""

    def by_transformers(draft: Draft, *, lifted: bool) -> Taps:
        taps: Taps = derive.by_transformers(draft, lifted=lifted)
        if lifted:
            taps[tap] = taps[tap].copy()
            taps[tap][-1:][..., rows, :] *= factor
        return taps

    return by_transformers


def write(tmp_path: Path, *case_ids: str) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    for case_id in case_ids:
        made.write(drafts()[case_id])


PLANTED = {
    NORM: "y",
    RING: "context",
    GOLDEN: "model.layers.1.mlp.act",
    "layer/31b-mini/full-own-hot": "model.layers.5.output",
    PADDED: "logits.raw",
}


@pytest.mark.parametrize(("case_id", "tap"), PLANTED.items(), ids=PLANTED.keys())
def test_a_planted_difference_is_refused(
    case_id: str, tap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    if case_id == PADDED:
        made.write(drafts()[GOLDEN])
    monkeypatch.setattr(writer, "by_transformers", perturbed(tap, 1 + 1e-9))
    with pytest.raises(ExportError) as caught:
        made.write(drafts()[case_id])
    text = str(caught.value)
    assert text.startswith(f"{case_id}: transformers")
    assert f" at {tap}, expected at most " in text
    assert "\n" not in text
    assert not (tmp_path / "cases" / case_id).exists()
    monkeypatch.setattr(writer, "by_transformers", perturbed(tap, 1 + 1e-14))  # rounding is no difference
    made.write(drafts()[case_id])
    assert (tmp_path / "cases" / case_id / "case.json").exists()


def test_a_difference_at_pads_is_none_and_one_behind_them_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    made.write(drafts()[GOLDEN])
    monkeypatch.setattr(writer, "by_transformers", perturbed("logits", 5.0, slice(0, 12)))  # the last row's pads
    made.write(drafts()[PADDED])
    monkeypatch.setattr(writer, "by_transformers", perturbed("logits", 1 + 1e-9, slice(12, 13)))
    with pytest.raises(ExportError, match=f"{PADDED}: transformers under this plan and the golden differ"):
        made.write(drafts()[PADDED])


def test_a_layout_whose_files_say_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    made.write(drafts()[GOLDEN])
    draft = drafts()[f"forward/{LAYOUT}/uniform-l19/no-cache"]
    layout = LAYOUTS[LAYOUT]
    another = replace(layout, changes={**layout.changes, "final_logit_softcapping": 13.0})
    derive._oracle.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(derive, "LAYOUTS", {LAYOUT: another})
        with pytest.raises(ExportError, match=f"^{draft.id}: the oracle under this plan .* at logits, expected"):
            made.write(draft)
    derive._oracle.cache_clear()
    made.write(draft)
    assert Fixtures(tmp_path).case(draft.id).model == LAYOUT


def test_an_oracle_that_depends_on_the_plan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    made.write(drafts()[GOLDEN])

    def by_oracle(draft: Draft) -> Taps:
        taps: Taps = derive.by_oracle(draft)
        return taps | {"logits": taps["logits"] * (1 + 1e-9)}

    monkeypatch.setattr(writer, "by_oracle", by_oracle)
    case_id = f"forward/{MODEL}/uniform-l19/tokens"
    with pytest.raises(ExportError, match=f"{case_id}: the oracle under this plan and the golden differ .* at logits,"):
        made.write(drafts()[case_id])


@pytest.mark.parametrize("bad", ["nan", "shape", "missing"])
def test_no_tap_escapes_the_comparison(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tap = "model.layers.1.residual_2"  # neither first nor last of the taps

    def by_transformers(draft: Draft, *, lifted: bool) -> Taps:
        taps: Taps = derive.by_transformers(draft, lifted=lifted)
        if bad == "missing":
            return {name: value for name, value in taps.items() if name != tap}
        return taps | {tap: taps[tap] * np.nan if bad == "nan" else taps[tap][:, :-1]}

    monkeypatch.setattr(writer, "by_transformers", by_transformers)
    with pytest.raises(ExportError, match=f"^{GOLDEN}: transformers, lifted.* {tap}"):
        write(tmp_path, GOLDEN)


def test_relative_rms_by_hand() -> None:
    a, b = np.array([1.0, 2.0, 3.0, 9.0]), np.array([1.0, 2.0, 4.0, 0.0])
    mask = np.array([True, True, True, False])
    assert agreement.relative_rms(a, b, mask) == pytest.approx(np.sqrt(1 / 21))
    assert agreement.relative_rms(b, b) == 0.0
    assert agreement.relative_rms(np.zeros(3), np.zeros(3)) == 0.0
    assert agreement.relative_rms(np.array([1e-300, 1.0]), np.zeros(2)) == float("inf")
    assert agreement.worst({"x": a, "y": b}, {"x": b, "y": b, "z": b}) == (agreement.relative_rms(a, b), "x")
    assert agreement.worst({"x": a[:3]}, {"x": b}) == (float("inf"), "x")
    with pytest.raises(ValueError, match="no tap in common"):
        agreement.worst({"x": a}, {"y": b})


def test_limit_of_agreement_grows_with_the_position() -> None:
    policy = Fixtures().policy
    assert agreement.agreement_limit(policy, None) == 1e-12
    assert agreement.agreement_limit(policy, np.array([[0, 4096]])) == 1e-12
    assert agreement.agreement_limit(policy, np.array([[131071]])) == 131071 * 2.0**-52


def test_torch_runs_on_one_thread_for_a_while_only() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with derive.single_threaded():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


# --- what is written


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


# --- the whole export


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


# --- the check


def test_check_reports_each_fault_and_nothing_else(small: Path) -> None:
    before = snapshot(small)
    clean = check(small, quiet)
    assert clean.faults == []
    assert clean.equal + clean.close == len(before) - sum(len(list((small / name).iterdir())) for name in BY_HAND) - 1
    assert clean.equal > 20
    assert snapshot(small) == before

    golden = small / "cases" / GOLDEN / "expected_f32.safetensors"
    arrays = dict(tensors.read(golden))
    arrays["model.norm"] = arrays["model.norm"] * np.float32(1 + 1e-5)
    tensors.write(golden, arrays)
    module = small / "cases" / NORM / "expected.safetensors"
    tensors.write(module, {"y": tensors.read(module)["y"] * (1 + 1e-9)})
    last_bit = small / "cases/module/mlp/dense/expected.safetensors"
    tensors.write(last_bit, {name: value * (1 + 2**-51) for name, value in tensors.read(last_bit).items()})
    renamed = small / "cases/module/softcap/cap-12/expected.safetensors"
    tensors.write(renamed, {"z": tensors.read(renamed)["y"]})
    nan = small / "cases/module/mlp/dense/expected_f32.safetensors"
    tensors.write(nan, {name: value if name == "act" else value * np.nan for name, value in tensors.read(nan).items()})
    shutil.rmtree(small / "cases/module/softcap/cap-30")
    shutil.copytree(small / "cases" / NORM, small / "cases/module/rms-norm/extra")
    inputs = small / "cases/module/rms-norm/large/inputs.safetensors"
    tensors.write(inputs, {name: value + np.float32(1) for name, value in tensors.read(inputs).items()})
    description = small / "cases/module/rms-norm/zeros/case.json"
    description.write_text(description.read_text().replace("A row of zeros", "A row of ones"))

    found = dict(fault.split(": ", 1) for fault in check(small, quiet).faults)
    limit, beside = "(relative RMS), expected at most 1e-", "cases/module/"
    assert found.pop(f"cases/{GOLDEN}/expected_f32.safetensors").startswith("model.norm differs by 1.0e-05 ")
    assert found.pop(f"cases/{NORM}/expected.safetensors") == f"y differs by 1.0e-09 {limit}12"
    assert found.pop(f"{beside}softcap/cap-12/expected.safetensors") == "other tensors"
    assert found.pop(f"{beside}mlp/dense/expected_f32.safetensors").startswith("y differs by nan ")
    assert found.pop(f"{beside}rms-norm/large/inputs.safetensors") == "other bytes"
    assert found.pop(f"{beside}rms-norm/zeros/case.json") == "another description"
    assert set(found.values()) == {"not made", "not stored"}
    names = {name.removeprefix(beside).rpartition("/")[0]: what for name, what in found.items()}
    assert names == {"softcap/cap-30": "not stored", "rms-norm/extra": "not made"}
    assert len(found) == 8  # four files of a module case each


def test_plans_of_pointers_are_written_as_pointers(tmp_path: Path) -> None:
    write(tmp_path, GOLDEN, PADDED)
    fixtures = Fixtures(tmp_path)
    raw: Mapping[str, Any] = json.loads((tmp_path / "cases" / PADDED / "case.json").read_bytes())
    assert raw["golden"] == {"case": GOLDEN, "rows": [0, 19]}
    assert raw["mask"] == "valid"
    assert "taps" not in raw
    assert fixtures.case(PADDED).plan == Plan(steps=[15, 1, 1, 1, 1], left_pad=[0, 3, 12])
    assert sorted(path.name for path in (tmp_path / "cases" / PADDED).iterdir()) == ["case.json", "inputs.safetensors"]
