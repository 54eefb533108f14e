"""The release archive, and copies of the fixtures elsewhere."""

from __future__ import annotations

import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from gemma4_contract import Fixtures
from gemma4_contract.archive import write_archive
from gemma4_contract.sums import SUMS
from tests.support.installed import FIXTURES
from tests.support.runs import run_command
from tests.support.trees import small_tree

VERSION = version("gemma4-conformance")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_archive(FIXTURES, folder / "a.tar.gz", "1.2.3")
    with tarfile.open(folder / "a.tar.gz") as archive:
        safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4
        archive.extractall(folder, **safely)
    return folder / "gemma4-fixtures-1.2.3"


def test_what_is_unpacked_is_whole_and_the_same(unpacked: Path) -> None:
    copy = Fixtures(unpacked)
    assert copy.verify() == []
    assert copy.differs_from(FIXTURES) is None
    assert len(copy.files()) == len(FIXTURES.files())
    done = run_command("verify", "--vendored", str(unpacked))
    assert (done.returncode, " 0 faults\n" in done.stdout) == (0, True)


def test_the_archive_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_archive(Fixtures(small_tree(tmp_path / name)), tmp_path / f"{name}.tar.gz", "1.2.3")
    assert (tmp_path / "b.tar.gz").read_bytes() == (tmp_path / "a.tar.gz").read_bytes()


def test_a_copy_of_another_version_is_told_apart(unpacked: Path) -> None:
    policy = unpacked / "floors" / "policy.json"
    before = policy.read_bytes(), (unpacked / SUMS).read_bytes()
    policy.write_bytes(before[0] + b"\n")
    copy = Fixtures(unpacked)
    copy.write_sums()
    done = run_command("verify", "--vendored", str(unpacked))
    policy.write_bytes(before[0])
    (unpacked / SUMS).write_bytes(before[1])
    assert done.returncode == 2
    assert f"{unpacked}/floors/policy.json: got " in done.stderr
    assert f" as in {FIXTURES.root}; vendor the fixtures of the version that is installed" in done.stderr


@pytest.mark.parametrize("data", [None, b"\xff\xfe"], ids=["missing", "no text"])
def test_a_copy_whose_sums_cannot_be_read_is_one_line(unpacked: Path, data: bytes | None) -> None:
    sums = unpacked / SUMS
    before = sums.read_bytes()
    sums.unlink()
    if data is not None:
        sums.write_bytes(data)
    done = run_command("verify", "--vendored", str(unpacked))
    sums.write_bytes(before)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{sums}: got no readable file, expected SHA-256 sums of all fixtures")


@pytest.mark.slow
def test_the_command_packs_what_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "fixtures.tar.gz"
    done = run_command("export", "--archive", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: fixtures {VERSION}, sha256 ")
    with tarfile.open(path) as archive:
        assert f"gemma4-fixtures-{VERSION}/{SUMS}" in archive.getnames()


def test_a_damaged_folder_is_not_packed(unpacked: Path, tmp_path: Path) -> None:
    readme = unpacked / "README.md"
    before = readme.read_bytes()
    readme.write_bytes(b"x")
    done = run_command("export", "--archive", str(tmp_path / "x.tar.gz"), "--fixtures-dir", str(unpacked))
    readme.write_bytes(before)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "x.tar.gz").exists()


def test_an_archive_that_cannot_be_written_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, folder = Fixtures(small_tree(tmp_path / "fixtures")), tmp_path / "archives"
    folder.mkdir()
    (folder / "a.tar.gz").write_bytes(b"older")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_archive(small, folder / "a.tar.gz", "1.2.3")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a.tar.gz", b"older")]
