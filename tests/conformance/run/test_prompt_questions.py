"""Questions on prompts in a whole run: chosen, judged, reported, diagnosed like cases."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from conformance.conftest import _is_empty
from conformance.reporting import jsonl as report
from tests.support import ROOT
from tests.support.runs import Done, run_command, run_suite

PORT = """
from conformance.adapters.mlx_impl.adapter import MlxImplAdapter

class Port(MlxImplAdapter):
    def prompt(self, request):
        return super().prompt(request) + " "
"""
PLAIN = "prompt/chat/user-plain"


@pytest.fixture
def no_tokenizer(tmp_path: Path) -> dict[str, str]:
    """Nothing fetched: to load the real tokenizer takes longer than the rest of a run."""
    return {"GEMMA4_CACHE": str(tmp_path)}


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Path]:
    """A port that writes a space too much, with its report."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "my_port.py").write_text(PORT)
    path = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}
    directory = folder / "report"
    return run_suite("--impl", "my_port:Port", "--cases", PLAIN, "--report", str(directory), env=path), directory


def test_a_wrong_prompt_fails_with_its_name_and_the_command_that_shows_it(red: tuple[Done, Path]) -> None:
    done, _ = red
    assert done.returncode == 1
    assert " 3 failed in " in done.stdout
    assert (
        f"\n{PLAIN}/thinking-unset: large@2026-04-02, generation prompt not asked for: differs from byte "
        in done.stdout
    )
    assert "looks like: white space at an end is missing or too much" in done.stdout
    again = f"pytest conformance/ --impl my_port:Port --profile f32 --cases '{PLAIN}/thinking-on'"
    assert f"\nreproduce: {again}\n" in done.stdout


def test_it_stands_in_the_report_and_is_diagnosed(red: tuple[Done, Path]) -> None:
    _, directory = red
    _, lines = report.read(directory)
    assert {name: line.outcome for name, line in lines.items()} == {
        f"{PLAIN}/thinking-{thinking}": "fail" for thinking in ("unset", "off", "on")
    }
    told = run_command("diagnose", str(directory))
    assert told.returncode == 1
    assert told.stdout.startswith("3 questions on prompts fail\nfirst: prompt/chat/user-plain/thinking-unset: large@")


@pytest.mark.parametrize(
    ("pattern", "passed"), [(PLAIN, 3), (f"{PLAIN}/thinking-on", 1), ("prompt/chat/user-*", 51), ("*/user-plain*", 3)]
)
def test_cases_chooses_conversations_and_questions(pattern: str, passed: int, no_tokenizer: dict[str, str]) -> None:
    done = run_suite("--cases", pattern, env=no_tokenizer)
    assert done.returncode == 0
    assert f" {passed} passed in " in done.stdout


def test_prompts_are_asked_in_every_profile_and_whole(no_tokenizer: dict[str, str]) -> None:
    done = run_suite("--cases", PLAIN, "--profile", "bf16", "--tokens", "1", env=no_tokenizer)
    assert " 3 passed in " in done.stdout


@pytest.mark.parametrize(
    ("params", "left_out"),
    [({}, False), ({"case_id": "a"}, False), ({"n": 7}, False), ({"case_id": object()}, True)],
)
def test_only_modules_of_the_suite_without_cases_are_left_out(params: dict[str, object], left_out: bool) -> None:
    """Tests of other folders in the same run keep their parameters, whatever these are."""
    item = SimpleNamespace(callspec=SimpleNamespace(params=params))
    assert _is_empty(item) is left_out  # type: ignore[arg-type]
