"""Goldens, floors and verdicts of a checkpoint of the user's own."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from conformance.adapters.registry import BadOption
from conformance.cli import app
from conformance.cli.full_size import goldens_opener
from conformance.run.session import Session
from gemma4_contract import FixtureError
from reference import full_size
from tests.support.small_full_size import TINY, exported, run
from tests.support.wide_models import WIDE


@pytest.mark.parametrize("name", TINY)
def test_goldens_of_a_materialised_checkpoint_are_the_rule_s(
    name: str, places: tuple[Path, Path], tmp_path: Path
) -> None:
    root, cache = places
    exported(cache / "full" / name, tmp_path)
    for case_id in (f"forward/{name}/text-l89/no-cache", f"forward/{name}/text-l64/no-cache"):
        for path in (root / "full" / "cases" / case_id).glob("*.safetensors"):
            assert (tmp_path / "cases" / case_id / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "SHA256SUMS").is_file()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("member", ["e2b", "26b-a4b"])
@pytest.mark.parametrize("bits", [None, 4])
def test_a_port_is_judged_on_a_checkpoint_of_one_s_own(
    member: str, bits: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mlx_impl on the codes that MLX made, against the oracle on what they mean."""
    monkeypatch.setattr(full_size, "FULL_SIZE", {"wide-full": WIDE[member]})
    folder, goldens = tmp_path / "My_Gemma 4", tmp_path / "goldens"
    quantised = ["--quantize", str(bits)] if bits else []
    assert run(app, ["materialize", "wide-full", str(folder), *quantised]).exit_code == 0
    named = exported(folder, goldens, "f32")
    ended = run(app, ["run", *named, "--json"])
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["levels"] == {"L5": {"pass": 4}}
    ended = run(app, ["run", *named, "--jobs", "2", "--cases", "*-l1/*"])
    assert ended.exit_code == 0, ended.output

    session = Session("mlx_impl", "f32", full_size=goldens_opener(folder, goldens))
    command = session.reproduce("forward/my-gemma-4/text-l1/no-cache")
    ended = run(app, shlex.split(command)[1:])
    assert ended.exit_code == 0, ended.output


def test_what_was_made_is_told(places: tuple[Path, Path], tmp_path: Path) -> None:
    named = ["--checkpoint", str(places[1] / "full" / "tiny-full"), "--goldens", str(tmp_path)]
    ended = run(app, ["export", *named])
    assert re.fullmatch(rf"{tmp_path}/cases/forward/tiny-full: 0\.\d\d MB\n", ended.stdout)
    ended = run(app, ["floors", *named])
    families = re.findall(r"^without the (\w+) family the floors would be exceeded .* times", ended.stdout, re.M)
    assert sorted(families) == ["mlx", "numpy", "torch"]


def test_what_is_missing_of_one_s_own_is_told_with_its_cure(places: tuple[Path, Path], tmp_path: Path) -> None:
    folder = places[1] / "full" / "tiny-full"
    named = ["--checkpoint", str(folder), "--goldens", str(tmp_path)]
    for options, said in (
        (named[:2], "--checkpoint, --goldens: got one of them, expected both"),
        (named, f"{tmp_path}: got no goldens of tiny-full, expected some; make them: gemma4-conformance export"),
        ([*named, "--levels", "L1"], "--levels: got L1 with --checkpoint, expected L5"),
    ):
        with pytest.raises((BadOption, FixtureError)) as told:
            raise run(app, ["run", *options]).exception or AssertionError
        assert str(told.value).startswith(said)
    exported(folder, tmp_path)
    cure = "measure them: gemma4-conformance floors --checkpoint .* --goldens .* --profile f32"
    with pytest.raises(FixtureError, match=cure):
        Session("mlx_impl", "f32", full_size=goldens_opener(folder, tmp_path))
    other = tmp_path / "tiny-full"
    shutil.copytree(places[1] / "full" / "experts-full", other)
    with pytest.raises(FixtureError, match=r"config\.json: got another, expected the configuration"):
        Session("mlx_impl", "f32", full_size=goldens_opener(other, tmp_path))
