"""Reports on models at full size: where an answer is wrong, and the goldens that a report is on."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from conformance.cli import app
from gemma4_contract import FixtureError, Fixtures
from reference import full_size
from tests.support.small_full_size import TINY, exported, run

PORT = """
from gemma4_contract.graph import text_graph
from conformance.adapters.mlx_impl.adapter import MlxImplAdapter

class Port(MlxImplAdapter):
    def run(self, request):
        answer = super().run(request)
        name = "model.layers.3.output"
        if name in answer and "-full/" in request.case:
            answer[name] = answer[name].copy()
            answer[name][:, {first}:] *= 1.01
        return answer
"""


@pytest.mark.parametrize(
    ("model", "first", "where"),
    [
        ("tiny-full", 9, "at row 9"),
        ("tiny-full", 8, "at row 8, where the window is full"),
        ("tiny-full", 40, "between rows 11 and 63"),
        ("experts-full", 9, "at row 9"),
    ],
)
def test_a_report_at_full_size_says_where_it_is_wrong(
    model: str, first: int, where: str, places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"wrong_from_{first}.py").write_text(PORT.format(first=first))
    options = ["--levels", "L5", "--fixtures-dir", str(places[0]), "--cases", f"forward/{model}/*"]
    report = tmp_path / "report"
    ended = run(app, ["run", "--impl", f"wrong_from_{first}:Port", *options, "--report", str(report)])
    assert ended.exit_code == 1, ended.output
    page = (report / "report.html").read_text()
    assert "level none" in page
    assert f'id="cell {model} output 3"' in page
    assert 'id="positions"' in page
    told = run(app, ["diagnose", str(report), "--fixtures-dir", str(places[0])])
    assert told.exit_code == 1
    lines = told.stdout.splitlines()
    assert lines[1:3] == ["first divergence: model.layers.3.output", f"  in forward/{model}/text-l89/no-cache"]
    assert f"  it begins {where}" in lines
    (row,) = re.findall(r"at \[0, (\d+), \d+\]", lines[3])
    assert first <= int(row) in full_size.stored_rows(TINY[model])
    assert lines[-2].startswith("looks like: known mistakes are not compared at full size")
    command = lines[-1].removeprefix("reproduce: ")
    ended = run(app, shlex.split(command)[1:])
    assert ended.exit_code == 1
    assert "first divergence: model.layers.3.output" in ended.stdout
    told = run(app, ["diagnose", str(report), "--fixtures-dir", str(places[0]), "--json"])
    assert json.loads(told.stdout)["mistake"] is None


def test_a_report_finds_the_goldens_of_one_s_own_again(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "wrong_on_its_own.py").write_text(PORT.format(first=9))
    checkpoint = places[1] / "full" / "tiny-full"
    named = exported(checkpoint, Path("goldens"), "f32")
    ended = run(
        app, ["run", "--impl", "wrong_on_its_own:Port", *named, "--cases", "*-l89/no-cache", "--report", "report"]
    )
    assert ended.exit_code == 1, ended.output
    monkeypatch.chdir(places[1])
    told = run(app, ["diagnose", str(tmp_path / "report")])
    assert told.exit_code == 1, told.output
    assert "it begins at row 9" in told.stdout
    assert f"--checkpoint {checkpoint} --goldens {tmp_path / 'goldens'}" in told.stdout
    assert run(app, ["report", str(tmp_path / "report")]).exit_code == 0
    shutil.rmtree(tmp_path / "goldens")
    with pytest.raises(FixtureError, match="got no goldens of tiny-full"):
        raise run(app, ["report", str(tmp_path / "report")]).exception or AssertionError


def test_a_report_on_other_goldens_is_refused(places: tuple[Path, Path], tmp_path: Path) -> None:
    root = tmp_path / "fixtures"
    shutil.copytree(places[0], root)
    options = ["--levels", "L5", "--cases", "forward/tiny-full/text-l1/*", "--report", str(tmp_path / "report")]
    ended = run(app, ["run", *options, "--fixtures-dir", str(root)])
    assert ended.exit_code == 0, ended.output
    assert "level L5 of tiny-full<" in (tmp_path / "report" / "report.html").read_text()
    floors = root / "full" / "floors" / "f32.json"
    floors.write_text(floors.read_text() + "\n")
    Fixtures(root).write_sums()
    with pytest.raises(FixtureError, match="got a report on other fixtures"):
        raise run(app, ["report", str(tmp_path / "report"), "--fixtures-dir", str(root)]).exception or AssertionError
