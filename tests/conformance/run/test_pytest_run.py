"""`pytest conformance/` as its users run it: header, options, exit codes, reproduction, known failures."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.runs import ALONE_OR_SHARED, FAKES, Done, one_line, run, run_suite
from tests.support.trees import LAYER, ROPE


def output(done: Done) -> str:
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    assert "INTERNALERROR" not in text, text
    return text


# The header, and what is judged


def test_the_header_says_who_is_judged_on_what() -> None:
    """With every plugin that is installed, as people run it."""
    done = run(
        [sys.executable, "-m", "pytest", "conformance/", "--cases", "module/rope/*-at-1", "-p", "no:cacheprovider"]
    )
    assert done.returncode == 0, output(done)
    who = r"^gemma 4 conformance: mlx_impl \S+ \(mlx \S+\) \(Python\) on Device\(\w+, 0\), profile f32$"
    on = rf"^fixtures: {ROOT}/fixtures \(\d+ cases\); error of products: \d\.\de-07$"
    assert re.search(who, done.stdout, re.MULTILINE), done.stdout
    assert re.search(on, done.stdout, re.MULTILINE), done.stdout
    assert " 2 passed in " in done.stdout  # and no skip for every module that holds none of the cases


def test_a_right_port_is_green() -> None:
    done = run_suite("--impl", "parrot", "--cases", "module/rope/*-at-1")
    assert done.returncode == 0, output(done)
    assert " 2 passed in " in done.stdout


def test_fixtures_are_found_through_the_environment_too(tmp_path: Path) -> None:
    done = run_suite("--impl", "parrot", env={"GEMMA4_FIXTURES": str(tmp_path)})
    assert done.returncode == 2
    assert one_line(done.stderr).startswith(f"Exit: {tmp_path}: got no folder cases/")


# Bad options


def test_an_unknown_port() -> None:
    done = run_suite("--impl", "mlx-impl")
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert line.startswith("Exit: --impl: got 'mlx-impl', expected one of mlx_impl, mlx_impl_fused, mlx_lm, ")
    assert done.stdout == ""


@pytest.mark.parametrize("extra", ALONE_OR_SHARED)
def test_a_profile_that_the_port_does_not_offer(extra: tuple[str, ...]) -> None:
    done = run_suite("--profile", "f64", *extra)
    assert done.returncode == 2
    assert one_line(done.stderr) == ("Exit: --profile: got f64, expected one that mlx_impl offers: f32, bf16, f16")


@pytest.mark.parametrize("pattern", ["modul/*", "module/embedding/rounded-scale-bf16"])
def test_a_glob_that_matches_nothing_that_is_asked(pattern: str) -> None:
    done = run_suite("--impl", "parrot", "--cases", pattern)
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert line.startswith(f"Exit: --cases: got '{pattern}', which matches no case that is asked in profile f32, exp")


@pytest.mark.parametrize(
    ("port", "blocked", "cure"),
    [
        ("mlx_impl", "mlx", "pip install 'mlx[cpu]' on Linux, or mlx on a Mac"),
        ("mlx_lm", "mlx_lm", "pip install 'gemma4-conformance[mlx-lm]'"),
        ("transformers", "torch", "pip install 'gemma4-conformance[reference]'"),
    ],
)
def test_a_port_whose_package_is_missing(port: str, blocked: str, cure: str) -> None:
    done = run_suite("--impl", port, env={"SUITE_BLOCKED": blocked})
    assert done.returncode == 3
    line = one_line(done.stderr)
    assert re.fullmatch(rf"Exit: --impl {port}: No module named '{blocked}[.\w]*'; {re.escape(cure)}", line), line


# Wrong ports


@pytest.mark.parametrize("extra", ALONE_OR_SHARED)
def test_a_wrong_port_is_told_where_and_how_to_see_it_again(extra: tuple[str, ...]) -> None:
    done = run_suite("--impl", "wrong", "--cases", "module/rope/default-at-*", *extra)
    text = output(done)
    assert done.returncode == 1
    assert "1 failed, 4 passed in " in text
    assert "first divergence: y\n" in text
    assert "  relative RMS error 1.00e+00 (tolerance " in text

    command = re.findall(r"^reproduce: (.*)$", text, re.MULTILINE)
    assert command == [f"pytest conformance/ --impl wrong --profile f32 --cases '{ROPE}'"]
    if not extra:
        again = run(command[0], FAKES)
        assert again.returncode == 1
        assert " 1 failed in " in again.stdout
        assert "first divergence: y\n" in again.stdout


def test_the_first_divergence_of_a_layer_is_named_in_full() -> None:
    done = run_suite("--impl", "wrong", "--cases", LAYER)
    assert done.returncode == 1
    assert "first divergence: model.layers.0.output\n" in output(done)


def test_the_command_that_reproduces_names_other_fixtures(tmp_path: Path) -> None:
    elsewhere = tmp_path / "my fixtures"
    elsewhere.symlink_to(ROOT / "fixtures")
    done = run_suite("--impl", "wrong", "--fixtures-dir", str(elsewhere), "--cases", ROPE)
    (command,) = re.findall(r"^reproduce: (.*)$", output(done), re.MULTILINE)
    assert command.endswith(f" --fixtures-dir '{elsewhere}'")
    again = run(command, FAKES)
    assert f"reproduce: {command}\n" in again.stdout


@pytest.mark.parametrize("extra", ALONE_OR_SHARED)
def test_a_port_that_skips_everything_is_not_green(extra: tuple[str, ...]) -> None:
    done = run_suite("--impl", "skipping", "--cases", "module/rope/*-at-1", *extra)
    text = output(done)
    assert done.returncode == 1
    assert " 2 skipped in " in text
    assert text.count("every case was skipped: nothing was shown to conform\n") == 1


def test_a_port_that_raises_everywhere_fails_in_one_line_a_case() -> None:
    done = run_suite("--impl", "raising", "--cases", "module/rope/*-at-1")
    text = output(done)
    assert done.returncode == 1
    assert "error of products: not measured" in text
    assert " 2 failed in " in text
    assert text.count("\nthe implementation raised ValueError: nothing works (fakes.py:") == 2


# Known failures


def listed(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "wrong.txt"
    path.write_text(text, encoding="utf-8")
    return {"SUITE_KNOWN_FAILURES": str(path)}


def test_a_known_failure_does_not_fail_the_run(tmp_path: Path) -> None:
    known = listed(tmp_path, f"f32 {ROPE}  # turns twice, see https://example.org/1\n")
    done = run_suite("--impl", "wrong", "--cases", "module/rope/default-at-*", env=known)
    assert done.returncode == 0, output(done)
    assert "4 passed, 1 xfailed in " in done.stdout
    assert "turns twice, see https://example.org/1" in done.stdout


def test_a_known_stop_does_not_fail_the_run_and_another_does(tmp_path: Path) -> None:
    for word, code in (("stops", 0), ("", 1)):
        known = listed(tmp_path, f"f32 {ROPE} {word} # raises, see https://example.org/1\n")
        done = run_suite("--impl", "raising", "--cases", ROPE, env=known)
        assert done.returncode == code, output(done)
        assert ("1 xfailed in " in done.stdout) == (word == "stops")


@pytest.mark.parametrize("extra", ALONE_OR_SHARED)
def test_a_known_failure_that_passes_fails_the_run(tmp_path: Path, extra: tuple[str, ...]) -> None:
    known = listed(tmp_path, "f32 module/rope/default-at-*  # too wide a glob\n")
    done = run_suite("--impl", "wrong", "--cases", "module/rope/default-at-[15]*", *extra, env=known)
    assert done.returncode == 1
    text = output(done)
    assert "2 failed, 1 xfailed in " in text
    assert "module/rope/default-at-1 passes, but wrong.txt lists it: delete the line" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "f32 module/rop/*  # moved\n",
            "wrong.txt: got module/rop/*, which matches no case, expected a case id; ",
        ),
        (
            "f32 module/rope/*\n",
            "wrong.txt:1: got 'f32 module/rope/*', expected <profile> <case glob> [stops] # reason",
        ),
    ],
)
def test_a_list_that_is_wrong(tmp_path: Path, text: str, told: str) -> None:
    done = run_suite("--impl", "wrong", "--cases", ROPE, env=listed(tmp_path, text))
    assert done.returncode == 2
    assert one_line(done.stderr).startswith(f"Exit: {tmp_path}/{told}")
