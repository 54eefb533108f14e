"""`Fixtures`: reads what is stored, refuses what is damaged, and `verify` finds each fault, whatever the sums say."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma4_contract import FixtureError, Fixtures, tensors
from gemma4_contract.files import sha256
from gemma4_contract.tensors import Array
from reference.export.checkpoint import model_weights, write_checkpoint
from reference.layouts import LAYOUTS

PARTS = (
    "cases/forward/trap-eps",
    "cases/module/rms-norm",
    "cases/module/ple-index",
    "cases/layer/31b-mini/full-own-hot",
    "floors",
    "models/trap-eps",
    "profiles",
    "schema",
)
GOLDEN = "forward/trap-eps/uniform-l19/no-cache"
TOKENS = "forward/trap-eps/uniform-l19/tokens"
PADDED = "forward/trap-eps/uniform-l19/padded"
NORM = "module/rms-norm/weighted"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all fixtures."""
    root = tmp_path_factory.mktemp("whole") / "fixtures"
    shutil.copytree(Fixtures().root, root)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A small part of the fixtures, with sums of its own, to be damaged."""
    root = tmp_path / "fixtures"
    for part in PARTS:
        shutil.copytree(whole / part, root / part)
    Fixtures(root).write_sums()
    assert Fixtures(root).verify() == []
    return root


def faults(root: Path, *, sums: bool = False) -> list[str]:
    """What verify says, paths below the root; with the sums written anew first if asked, so that they tell nothing."""
    if sums:
        Fixtures(root).write_sums()
    found = [str(fault) for fault in Fixtures(root).verify()]
    assert all("\n" not in text and ", expected " in text and "; restore" in text for text in found)
    return [text.replace(f"{root}/", "") for text in found]


def test_the_stored_fixtures_have_no_fault(whole: Path) -> None:
    assert Fixtures(whole).verify() == []
    listed = {line.split("  ")[1] for line in (whole / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()} - {
        "SHA256SUMS"
    }


def test_sums_are_what_sha256sum_reads(root: Path) -> None:
    for line in (root / "SHA256SUMS").read_text().splitlines():
        digest, name = line[:64], line[66:]
        assert line[64:66] == "  "
        assert sha256((root / name).read_bytes()) == digest


# --- faults that the sums tell


def test_a_changed_byte_is_found(root: Path) -> None:
    for name in ("models/trap-eps/model.safetensors", f"cases/{NORM}/inputs.safetensors", "schema/case.schema.json"):
        data = bytearray((root / name).read_bytes())
        data[-1] ^= 1
        (root / name).write_bytes(data)
        assert [text for text in faults(root) if text.startswith(f"{name}: got SHA-256 ")], name


def test_missing_and_surplus_files_are_found(root: Path) -> None:
    (root / f"cases/{NORM}/expected.safetensors").unlink()
    (root / "cases/module/note.txt").write_text("hello")
    found = faults(root)
    assert found[0].startswith(f"cases/{NORM}/expected.safetensors: got no file, expected one, as SHA256SUMS says")
    assert found[1].startswith("cases/module/note.txt: got a file, expected none: SHA256SUMS does not list it")
    assert found[2].startswith(f"cases/{NORM}/expected.safetensors: got No such file")
    assert len(found) == 3


@pytest.mark.parametrize("data", [None, b"\xff\xfe"], ids=["missing", "no text"])
def test_unreadable_sums_are_a_fault(root: Path, data: bytes | None) -> None:
    (root / "SHA256SUMS").unlink()
    if data is not None:
        (root / "SHA256SUMS").write_bytes(data)
    (found,) = faults(root)
    assert found.startswith("SHA256SUMS: got no readable file, expected SHA-256 sums of all fixtures; ")


def test_unreadable_sums_list_no_model(sharded: Path) -> None:
    root = sharded.parents[1]
    (root / "SHA256SUMS").write_bytes(b"\xff\xfe")
    with pytest.raises(FixtureError, match="SHA256SUMS: got no UTF-8 text"):
        Fixtures(root).check_model(sharded.name)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Fixtures with one model, in shards."""
    layout = LAYOUTS["layout-sharded"]
    directory = tmp_path / "models" / layout.id
    write_checkpoint(directory, layout.config_json, layout.laid_out(model_weights(layout.weights_of)), layout.shards)
    (tmp_path / "cases").mkdir()
    Fixtures(tmp_path).write_sums()
    Fixtures(tmp_path).check_model(layout.id)
    return directory


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ],
)
def test_every_file_of_a_sharded_model_is_checked(sharded: Path, file: str) -> None:
    data = (sharded / file).read_bytes()
    (sharded / file).write_bytes(data[:-1])
    with pytest.raises(FixtureError, match=f"{file}: got SHA-256 .* as SHA256SUMS says"):
        Fixtures(sharded.parents[1]).check_model(sharded.name)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FixtureError, match=r"model-00002-of-00003\.safetensors: got No such file"):
        Fixtures(sharded.parents[1]).check_model(sharded.name)


# --- faults that are found although the sums fit


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    raw = json.loads(path.read_bytes())
    change(raw)
    path.write_text(json.dumps(raw))


def case_json(root: Path, case_id: str) -> Path:
    return root / "cases" / case_id / "case.json"


BAD_JSON: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "wrong digest of the inputs": (
        f"cases/{NORM}/case.json",
        lambda raw: raw["inputs"].update(sha256="0" * 64),
        f"cases/{NORM}/inputs.safetensors: got SHA-256 ",
    ),
    "wrong digest of the golden": (
        f"cases/{GOLDEN}/case.json",
        lambda raw: raw["golden"].update(sha256="0" * 64),
        f"cases/{GOLDEN}/expected_f32.safetensors: got SHA-256 ",
    ),
    "wrong digest of a tap": (
        f"cases/{NORM}/case.json",
        lambda raw: raw["taps"][0].update(sha256="0" * 64),
        f"cases/{NORM}/expected.safetensors: got SHA-256 ",
    ),
    "wrong shape": (
        f"cases/{NORM}/case.json",
        lambda raw: raw["taps"][0].update(shape=[6, 95]),
        f"cases/{NORM}/expected.safetensors: got shape [6, 96] of y, expected F64 [6, 95] as case.json says",
    ),
    "wrong dtype": (
        f"cases/{NORM}/case.json",
        lambda raw: raw["taps"][0].update(dtype="F32"),
        f"cases/{NORM}/expected.safetensors: got dtype F64 of y, expected F32 [6, 96] as case.json says",
    ),
    "wrong name": (
        f"cases/{NORM}/case.json",
        lambda raw: raw["taps"][0].update(name="z"),
        f"cases/{NORM}/expected.safetensors: got no tensor z, expected F64 [6, 96]",
    ),
    "axis too few": (
        f"cases/{NORM}/case.json",
        lambda raw: raw["taps"][0].update(axes=["L"]),
        f"cases/{NORM}/case.json: got Value error, 1 axes for a shape of 2 at taps.0",
    ),
    "unknown key": (
        f"cases/{NORM}/case.json",
        lambda raw: raw.update(suprise=1),
        f"cases/{NORM}/case.json: got Extra inputs are not permitted at suprise",
    ),
    "another id": (
        f"cases/{NORM}/case.json",
        lambda raw: raw.update(id="module/rms-norm/other"),
        f"cases/{NORM}/case.json: got id 'module/rms-norm/other', expected its path '{NORM}'",
    ),
    "unknown key of a card": (
        "models/trap-eps/model.json",
        lambda raw: raw.update(suprise=1),
        "models/trap-eps/model.json: got Extra inputs are not permitted at suprise, expected a ModelCard",
    ),
    "unknown key of the policy": (
        "floors/policy.json",
        lambda raw: raw.update(suprise=1),
        "floors/policy.json: got Extra inputs are not permitted at suprise, expected a Policy",
    ),
    "NaN in the policy": (
        "floors/policy.json",
        lambda raw: raw.update(agreement=float("nan")),
        "floors/policy.json: got NaN, which is no JSON number",
    ),
    "floor of three numbers": (
        "floors/f32.json",
        lambda raw: raw["floors"][NORM].update(y=[1.0, 2.0, 3.0]),
        f"floors/f32.json: got List should have at most 2 items after validation, not 3 at floors.{NORM}.y",
    ),
    "golden of nobody": (
        f"cases/{TOKENS}/case.json",
        lambda raw: raw["golden"].update(case="forward/trap-eps/none"),
        "cases/forward/trap-eps/none/case.json: got No such file",
    ),
    "golden of a case without one": (
        f"cases/{TOKENS}/case.json",
        lambda raw: raw["golden"].update(case=PADDED),
        f"cases/{TOKENS}/case.json: got a golden in {PADDED}, which stores none",
    ),
    "golden of itself": (
        f"cases/{TOKENS}/case.json",
        lambda raw: raw["golden"].update(case=TOKENS),
        f"cases/{TOKENS}/case.json: got a golden in {TOKENS}, which stores none",
    ),
    "more rows than there are": (
        f"cases/{TOKENS}/case.json",
        lambda raw: raw["golden"].update(rows=[0, 20]),
        f"cases/{TOKENS}/case.json: got rows [0, 20] after pads [0], expected rows of the 19 of {GOLDEN}",
    ),
    "no rows": (
        f"cases/{TOKENS}/case.json",
        lambda raw: raw["golden"].update(rows=[4, 4]),
        f"cases/{TOKENS}/case.json: got rows [4, 4] after pads [0]",
    ),
    "a row of nothing but pads": (
        f"cases/{PADDED}/case.json",
        lambda raw: raw["plan"].update(left_pad=[0, 3, 19]),
        f"cases/{PADDED}/case.json: got rows [0, 19] after pads [0, 3, 19]",
    ),
    "golden without an axis L": (
        f"cases/{TOKENS}/case.json",
        lambda raw: raw["golden"].update(case="module/ple-index/no-l"),
        f"cases/{TOKENS}/case.json: got rows [0, 19] after pads [0], expected rows of the 0 of module/ple-index/no-l",
    ),
}


@pytest.mark.parametrize(("file", "change", "fault"), BAD_JSON.values(), ids=BAD_JSON.keys())
def test_faults_of_json_are_found(root: Path, file: str, change: Callable[[Any], Any], fault: str) -> None:
    if "no-l" in fault:
        shutil.copytree(root / "cases/module/ple-index/first", root / "cases/module/ple-index/no-l")
        change_json(
            case_json(root, "module/ple-index/no-l"),
            lambda raw: (raw.update(id="module/ple-index/no-l"), raw["taps"][0].update(axes=["N"])),
        )
    change_json(root / file, change)
    found = faults(root, sums=True)
    assert found[0].startswith(fault), found
    assert all(text.startswith(fault) or TOKENS in text or PADDED in text for text in found)


def rewrite(root: Path, case_id: str, file: str, change: Callable[[dict[str, Array]], Any]) -> None:
    """Change the tensors of a golden file, and its digest in case.json with them."""
    path = root / "cases" / case_id / file
    arrays = dict(tensors.read(path))
    change(arrays)
    tensors.write(path, arrays)
    key = "golden" if json.loads(case_json(root, case_id).read_bytes())["golden"]["file"] == file else "golden_f32"
    change_json(case_json(root, case_id), lambda raw: raw[key].update(sha256=sha256(path.read_bytes())))


BAD_TENSORS: dict[str, tuple[str, Callable[[dict[str, Array]], Any], str]] = {
    "renamed": ("expected.safetensors", lambda t: t.update(z=t.pop("y")), "got no tensor y"),
    "cut": ("expected.safetensors", lambda t: t.update(y=t["y"][:-1]), "got shape [5, 96] of y"),
    "narrowed": ("expected.safetensors", lambda t: t.update(y=t["y"].astype(np.float32)), "got dtype F32 of y"),
    "another value": ("expected.safetensors", lambda t: t.update(y=t["y"] + 1e-9), "of y, expected"),
    "rounded copy renamed": ("expected_f32.safetensors", lambda t: t.update(z=t.pop("y")), "got no tensor y"),
    "rounded copy wider": ("expected_f32.safetensors", lambda t: t.update(y=t["y"].astype(float)), "got another y"),
    "rounded copy differs": (
        "expected_f32.safetensors",
        lambda t: t.update(y=np.nextafter(t["y"], np.float32(9))),
        "got another y, expected the golden, rounded to F32",
    ),
}


@pytest.mark.parametrize(("file", "change", "fault"), BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_faults_of_tensors_are_found(
    root: Path, file: str, change: Callable[[dict[str, Array]], Any], fault: str
) -> None:
    rewrite(root, NORM, file, change)
    (found,) = faults(root, sums=True)
    assert found.startswith(f"cases/{NORM}/{file}: got ")
    assert fault in found


def test_a_broken_tensor_file_is_a_fault_of_its_case_alone(root: Path) -> None:
    path = root / "cases" / GOLDEN / "expected_f32.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    change_json(case_json(root, GOLDEN), lambda raw: raw["golden"].update(sha256=sha256(path.read_bytes())))
    found = faults(root, sums=True)
    assert len(found) == 5  # the owner, and the four plans that point to it
    assert all("that safetensors cannot read" in text for text in found)


# --- reading


def test_a_folder_without_cases_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(FixtureError, match="name the folder that holds cases/"):
        Fixtures(tmp_path)


def test_pointed_goldens_are_rows_after_pads_without_taps_over_keys(root: Path) -> None:
    fixtures = Fixtures(root)
    golden = fixtures.golden(fixtures.case(GOLDEN))
    over_keys = {name for name in golden if name.endswith((".k_read", ".v_read", ".probs"))}
    assert len(over_keys) == 9
    padded = fixtures.golden(fixtures.case(PADDED))
    assert padded.keys() == golden.keys() - over_keys
    assert [tap.name for tap in fixtures.taps(fixtures.case(PADDED))] == list(padded)
    for row, pad in enumerate([0, 3, 12]):
        assert np.array_equal(padded["logits"][row, pad:], golden["logits"][0, : 19 - pad])
        keys = "model.layers.2.self_attn.k_rope"
        assert np.array_equal(padded[keys][row, :, pad:], golden[keys][0, :, : 19 - pad])
        assert not padded[keys][row, :, :pad].any()


def test_shorter_lengths_are_the_first_rows_and_keys() -> None:
    fixtures = Fixtures()
    whole = fixtures.golden(fixtures.case("forward/31b-mini/uniform-l19/no-cache"))
    short = fixtures.golden(fixtures.case("forward/31b-mini/uniform-l8/no-cache"))
    assert short.keys() == whole.keys()
    name = "model.layers.5.self_attn.probs"
    assert np.array_equal(short[name], whole[name][:, :, :8, :8])
    assert np.array_equal(short["logits"], whole["logits"][:, :8])
    assert fixtures.inputs(fixtures.case("forward/31b-mini/uniform-l8/no-cache"))["ids"].shape == (1, 8)


def test_a_damaged_file_is_refused_when_it_is_read(root: Path) -> None:
    path = root / "cases" / NORM / "inputs.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    fixtures = Fixtures(root)
    with pytest.raises(
        FixtureError, match=r"inputs\.safetensors: got SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64} as case"
    ):
        fixtures.inputs(fixtures.case(NORM))
