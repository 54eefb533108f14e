"""The command: what it prints, its exit codes, and no traceback for anything that a user can cause."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from conformance.cli import fixtures as fixtures_commands
from gemma4_contract import Fixtures, __version__, default_root
from tests.support.commands import Call, call_command
from tests.support.runs import one_line, run, run_command
from tests.support.trees import LAYER, OWNER, POINTER, ROPE, edit_json, small_tree


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.delenv("GEMMA4_FIXTURES", raising=False)
    return functools.partial(call_command, capsys, monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "fixtures")


def columns(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """A terminal of this width; a console looks at it once, when the command starts."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(fixtures_commands, "out", Console())


# list


def test_list_prints_every_case_with_its_purpose(call: Call, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns(monkeypatch, 400)
    code, out, err = call("list", "--fixtures-dir", str(root))
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows == [[c.id, c.purpose] for c in Fixtures(root).cases()]
    assert len(rows) == 4


def test_list_takes_a_glob(call: Call) -> None:
    code, out, _ = call("list", "module/rope/*", "--json")
    assert code == 0
    wanted = [case for case in Fixtures().case_ids if case.startswith("module/rope/")]
    assert wanted
    assert [row["id"] for row in json.loads(out)] == wanted


def test_list_as_json(call: Call, root: Path) -> None:
    code, out, err = call("list", "--json", "--fixtures-dir", str(root))
    assert (code, err) == (0, "")
    rows = {row["id"]: row for row in json.loads(out)}
    assert set(rows) == {ROPE, LAYER, POINTER, OWNER}
    case = Fixtures(root).case(LAYER)
    assert rows[LAYER] == {"id": LAYER, "kind": "layer", "model": "e2b-mini", "purpose": case.purpose}


def test_list_without_a_match(call: Call) -> None:
    code, out, err = call("list", "nothing*")
    assert (code, out) == (2, "")
    assert one_line(err) == "nothing*: got no case that matches, expected a glob over case ids; try '*rope*'"


def test_list_meets_a_damaged_case(call: Call, root: Path) -> None:
    edit_json(root / "cases" / ROPE / "case.json", lambda case: case.update(extra=1))
    code, _, err = call("list", "--fixtures-dir", str(root))
    assert code == 2
    assert one_line(err).startswith(f"{root}/cases/{ROPE}/case.json: got Extra inputs are not permitted at extra, ")


@pytest.mark.parametrize("width", [40, 10, 1])
def test_a_narrow_terminal_cuts_no_id(call: Call, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    columns(monkeypatch, width)
    monkeypatch.setattr(fixtures_commands, "out", Console(force_terminal=True, width=width))
    code, out, err = call("list", "module/rope/*-at-1")
    assert (code, err) == (0, "")
    for name in ("default", "proportional"):
        assert f"\x1b[1mmodule/rope/{name}-at-1\x1b[0m\n" in out


# verify


def test_verify_finds_nothing_wrong_with_good_fixtures(call: Call, root: Path) -> None:
    code, out, err = call("verify", "--fixtures-dir", str(root))
    assert (code, err) == (0, "")
    files = len(Fixtures(root).files())
    assert one_line(out).startswith(f"{files} files, ")
    assert out.endswith(" MB, 4 cases, 0 prompts, 0 faults\n")


def test_verify_tells_each_fault_on_a_line(call: Call, root: Path) -> None:
    (root / "cases" / ROPE / "inputs.safetensors").unlink()
    (root / "cases" / "stray.txt").write_text("?")
    code, out, err = call("verify", "--fixtures-dir", str(root))
    assert code == 2
    lines = err.splitlines()
    assert len(lines) > 1
    assert all(line.startswith(f"{root}/") and ": got " in line and ", expected " in line for line in lines)
    assert any(line.startswith(f"{root}/cases/stray.txt: got a file, expected none") for line in lines)
    assert any(line.startswith(f"{root}/cases/{ROPE}/inputs.safetensors: got no file") for line in lines)
    assert out.endswith(f" {len(lines)} faults\n")


def test_verify_as_json(call: Call, root: Path) -> None:
    code, out, err = call("verify", "--json", "--fixtures-dir", str(root))
    assert (code, err) == (0, "")
    files = Fixtures(root).files()
    size = sum(path.stat().st_size for path in files)
    assert json.loads(out) == {"files": len(files), "bytes": size, "cases": 4, "prompts": 0, "faults": []}

    (root / "models" / "e2b-mini" / "config.json").write_text("{}")
    code, out, err = call("verify", "--json", "--fixtures-dir", str(root))
    assert (code, err) == (2, "")
    (fault,) = json.loads(out)["faults"]
    assert fault.startswith(f"{root}/models/e2b-mini/config.json: got SHA-256 ")


def test_verify_reads_the_environment(call: Call, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA4_FIXTURES", str(root))
    code, out, _ = call("verify", "--json")
    assert (code, json.loads(out)["cases"]) == (0, 4)


# Bad usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["list", "--nonsense"],
        ["verify", "too", "many"],
        ["floors", "--seeds", "0"],
        ["list", "--fixtures-dir"],
    ],
)
def test_bad_usage(call: Call, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEMMA4_FIXTURES", str(tmp_path))  # whatever is taken for good usage must find nothing to change
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "─ Error ─" in err


@pytest.mark.parametrize("command", [["floors"], ["run"], ["self-test"], ["check", ROPE, "dump.safetensors"]])
def test_a_profile_that_the_fixtures_do_not_have(call: Call, root: Path, command: list[str]) -> None:
    (root / "profiles" / "bf16.json").unlink()
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    for profile in ("f8", "bf16"):
        code, out, err = call(*command, "--profile", profile, "--fixtures-dir", str(root))
        assert (code, out) == (2, "")
        assert "─ Error ─" in err
        assert f"Invalid value for '--profile': '{profile}' is not one of 'f64', 'f32', 'f16'." in err
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before


@pytest.mark.parametrize("command", ["list", "verify", "floors"])
@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_without_fixtures(call: Call, tmp_path: Path, command: str, folder: str) -> None:
    wrong = tmp_path / folder
    code, out, err = call(command, "--fixtures-dir", str(wrong))
    assert (code, out) == (2, "")
    assert one_line(err).startswith(f"{wrong}: got no folder cases/ in it, expected the fixtures folder; name the")


def test_the_version(call: Call) -> None:
    assert call("--version") == (0, f"gemma4-conformance {__version__}\n", "")


def test_help_is_no_error(call: Call) -> None:
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert all(name in out for name in ("list", "verify", "export", "floors", "diagnose", "bugs", "self-test"))


# Missing extras, closed pipes


def test_export_without_its_extra(root: Path) -> None:
    done = run_command("export", "--check", "--fixtures-dir", str(root), env={"SUITE_BLOCKED": "torch"})
    assert (done.returncode, done.stdout) == (3, "")
    assert one_line(done.stderr) == "export needs torch; pip install 'gemma4-conformance[reference,mlx-lm]'"


@pytest.mark.slow
def test_floors_without_an_implementation(root: Path) -> None:
    before = (root / "floors" / "f32.json").read_bytes()
    done = run_command("floors", "--fixtures-dir", str(root), env={"SUITE_BLOCKED": "mlx_lm"})
    assert (done.returncode, done.stdout) == (3, "")
    line = one_line(done.stderr)
    assert line.startswith("--impl mlx_lm: ")
    assert line.endswith("; pip install 'gemma4-conformance[mlx-lm]'")
    assert (root / "floors" / "f32.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cases", "subgraph/*", "--seeds", "2"], "--cases: the stored floors come from other variants, versions or"),
        (["--cases", "subgraph/*", "--model", "e2b-full"], "--cases: got it with a model at full size, expected it"),
        (
            ["--cases", "forward/*/chunks-*"],
            "--cases: got a glob that matches no case with a golden of its own",
        ),
    ],
)
def test_floors_of_some_cases(call: Call, root: Path, options: list[str], said: str) -> None:
    pytest.importorskip("mlx_lm")
    edit_json(root / "floors" / "f32.json", lambda stored: stored.update(seeds=1))
    before = (root / "floors" / "f32.json").read_bytes()
    code, _, err = call("floors", "--fixtures-dir", str(root), "--seeds", "1", *options)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())
    assert (root / "floors" / "f32.json").read_bytes() == before


def test_nothing_is_missed_by_commands_that_need_no_extra() -> None:
    done = run_command("list", "module/rope/*-at-1", env={"SUITE_BLOCKED": "torch,transformers,mlx,mlx_lm,reference.*"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "module/rope/default-at-1" in done.stdout


@pytest.mark.parametrize("options", ["", "--json"])
def test_a_closed_pipe_is_no_reason_for_a_traceback(options: str) -> None:
    """Readers that go at once, and after a line."""
    command = f"{sys.executable} -c 'from conformance.cli import main; main()' list {options}"
    done = run(f"{command} | true; {command} | head -n 1")
    assert done.stderr == ""
    assert done.stdout.startswith("[" if options else "attention/")


def test_the_installed_command_is_the_same() -> None:
    script = shutil.which("gemma4-conformance", path=str(Path(sys.executable).parent))
    assert script is not None
    done = run([script, "list", "nothing*"])
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("nothing*: got no case that matches")


def test_the_fixtures_of_this_checkout_are_the_default(call: Call) -> None:
    code, out, _ = call("list", "--json")
    assert code == 0
    listed = [row["id"] for row in json.loads(out)]
    cases = list((default_root() / "cases").rglob("case.json"))
    prompts = [path for part in ("chat", "text") for path in (default_root() / "prompts" / part).glob("*.json")]
    assert len(listed) == len(set(listed)) == len(cases) + len(prompts)
    assert {"prompt/chat/user-plain", "prompt/text/digits"} < set(listed)
