"""Every bad input of `diagnose` is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma4_contract import Fixtures
from tests.support.commands import Call
from tests.support.diagnoses import dump, reported
from tests.support.fakes import parrot
from tests.support.installed import FIXTURES
from tests.support.runs import one_line
from tests.support.trees import ROPE, small_tree


def test_every_bad_input_is_one_line(call: Call, tmp_path: Path) -> None:
    good = dump(tmp_path / "good.safetensors", ROPE)
    (tmp_path / "bad.safetensors").write_bytes(b"garbage")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.jsonl").write_text("garbage\n")
    told = {
        (f"{tmp_path}/nowhere",): f"{tmp_path}/nowhere: got No such file or directory, expected a report; make one",
        (f"{tmp_path}/empty",): f"{tmp_path}/empty/report.jsonl: got No such file or directory, expected a report; ",
        (f"{tmp_path}/broken",): f'{tmp_path}/broken/report.jsonl:1: got "Invalid JSON: ',
        (good,): "diagnose: got a dump without --case, expected the id of the case that it answers",
        (good, "--case", "module/embedding/rounded-scale-bf16"): "diagnose: got --profile f32, expected bf16: module/",
        (good, "--case", "module/rop"): "--case: got module/rop, expected the id of a case; see `gemma4-conform",
        (f"{tmp_path}/bad.safetensors", "--case", ROPE): f"{tmp_path}/bad.safetensors: got 7 bytes that safetensors",
        (f"{tmp_path}/no.safetensors", "--case", ROPE): f"{tmp_path}/no.safetensors: got No such file or directory, ",
        (good, "--case", ROPE, "--fixtures-dir", f"{tmp_path}"): f"{tmp_path}: got no folder cases/ in it, expected ",
    }
    for arguments, line in told.items():
        code, out, err = call("diagnose", *arguments)
        assert (code, out) == (2, ""), arguments
        assert one_line(err).startswith(line)


def test_a_report_on_other_fixtures_is_one_line(call: Call, tmp_path: Path) -> None:
    other = Fixtures(small_tree(tmp_path / "fixtures"))
    directory = reported(tmp_path / "report", other, parrot(other), ROPE)
    code, out, err = call("diagnose", directory)
    assert (code, out) == (2, "")
    assert one_line(err).startswith(f"{directory}: got a report on other fixtures (")
    assert call("diagnose", directory, "--fixtures-dir", str(other.root)) == (0, "nothing failed\n", "")


def test_a_report_in_a_profile_that_the_fixtures_do_not_have_is_one_line(call: Call, tmp_path: Path) -> None:
    directory = reported(tmp_path / "report", FIXTURES, parrot(FIXTURES), ROPE)
    file = Path(directory) / "report.jsonl"
    file.write_text(file.read_text().replace('"f32"', '"f8"'))
    for command in ("diagnose", "report"):
        code, out, err = call(command, directory)
        assert (code, out) == (2, "")
        assert one_line(err).startswith(f"{FIXTURES.root}/profiles: got no profile f8, expected f64, f32, bf16, f16; ")


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("a.safetensors", "--profile", "f8")])
def test_bad_usage(call: Call, arguments: tuple[str, ...]) -> None:
    code, out, err = call("diagnose", *arguments)
    assert (code, out) == (2, "")
    assert "─ Error ─" in err
