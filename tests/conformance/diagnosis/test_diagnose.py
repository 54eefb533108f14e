"""`diagnose` as its users run it: from a red run to the name of the mistake."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from reference import mutants
from reference.mutants import MUTANTS
from tests.support import ROOT
from tests.support.commands import Call
from tests.support.diagnoses import MUTANT, NO_CACHE
from tests.support.runs import Done, run_command, run_suite

CASES = "forward/e2b-mini/uniform-l9/*"


CHUNKS = "forward/e2b-mini/uniform-l9/chunks-5"


PORT = """
from conformance.adapters.mutant import MutantAdapter
from reference.mutants import MUTANTS

def Port():
    return MutantAdapter(MUTANTS["prop-rope-denominator"], "split")
"""


def path_with(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Done]:
    """The folder of the port, the report on it, and the run that wrote it."""
    folder = tmp_path_factory.mktemp("port")
    (folder / "port_with_a_mistake.py").write_text(PORT)
    options = ("--impl", "port_with_a_mistake:Port", "--cases", CASES, "--report", str(folder / "report"))
    done = run_suite(*options, env=path_with(folder))
    assert done.returncode == 1, done.stdout + done.stderr
    return folder, folder / "report", done


@pytest.mark.slow
def test_the_mistake_is_named_from_the_report_of_a_red_run(red: tuple[Path, Path, Done]) -> None:
    """With the whole catalogue, by the command that the run itself proposes."""
    folder, directory, run = red
    (command,) = re.findall(r"gemma4-conformance (diagnose .*)$", run.stdout, re.MULTILINE)
    assert command == f"diagnose {directory}"
    done = run_command("diagnose", str(directory), env=path_with(folder))
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "4 of 4 cases fail",
        "first divergence: model.layers.4.self_attn.q_rope",
        f"  in {NO_CACHE}",
    ]
    assert "  layer 4 is the first full-attention layer; the sliding layers before it agree" in lines
    assert "  only rotated channels are wrong (j and j + 16 for j < 4)" in lines
    assert "looks like: prop-rope-denominator (RoPE)" in lines
    assert f"  cure: {MUTANT.cure}" in lines
    assert [line.removeprefix("  see ") for line in lines if line.startswith("  see ")] == MUTANT.urls
    assert lines[-1] == (
        "reproduce: pytest conformance/ --impl port_with_a_mistake:Port --profile f32"
        f" --cases '{CHUNKS}' --tokens 2"  # at position 0 alone nothing is rotated
    )


def test_the_command_that_reproduces_is_red_as_well(red: tuple[Path, Path, Done]) -> None:
    folder, _, _ = red
    options = ("--impl", "port_with_a_mistake:Port", "--profile", "f32", "--cases", CHUNKS, "--tokens")
    assert run_suite(*options, "2", env=path_with(folder)).returncode == 1
    assert run_suite(*options, "1", env=path_with(folder)).returncode == 0


def test_the_same_for_machines(call: Call, red: tuple[Path, Path, Done], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, directory, _ = red
    monkeypatch.syspath_prepend(folder)
    code, out, err = call("diagnose", str(directory), "--json")
    assert (code, err) == (1, "")
    told = json.loads(out)
    assert told["fault"].startswith("got ")
    assert told["words"]
    assert told["reproduce"].endswith(" --tokens 2")
    assert [(node["node"], node["layers"]) for node in told["wrong_nodes"]] == [
        ("self_attn.q_rope", [4, 9]),
        ("self_attn.k_rope", [4]),
    ]
    del told["fault"], told["words"], told["reproduce"], told["wrong_nodes"]
    assert [cause["mistakes"] for cause in told.pop("causes")] == [["prop-rope-denominator"]]
    assert told == {
        "failing": 4,
        "judged": 4,
        "case": NO_CACHE,
        "first_divergence": "model.layers.4.self_attn.q_rope",
        "mistake": "prop-rope-denominator",
        "cure": MUTANT.cure,
        "links": MUTANT.urls,
        "stops_like": [],
        "cannot_be_told_apart": [],
        "wrong_prompts": [],
    }


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port is not installed here."""
    monkeypatch.setitem(sys.modules, "port_with_a_mistake", None)


@pytest.mark.usefixtures("elsewhere")
def test_a_port_that_is_not_installed_here_is_diagnosed_still(call: Call, red: tuple[Path, Path, Done]) -> None:
    """The mistake itself stands in for the port when tokens are cut."""
    _, directory, _ = red
    code, out, err = call("diagnose", str(directory / "report.jsonl"))
    assert (code, err) == (1, "")
    assert "looks like: prop-rope-denominator (RoPE)\n" in out
    assert out.endswith(" --tokens 2\n")


@pytest.mark.usefixtures("elsewhere")
def test_an_unknown_mistake_is_called_unknown_and_nothing_is_cut_without_the_port(
    call: Call, red: tuple[Path, Path, Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, directory, _ = red
    monkeypatch.setattr(mutants, "MUTANTS", {"gelu-erf": MUTANTS["gelu-erf"]})
    code, out, _ = call("diagnose", str(directory))
    assert code == 1
    assert "looks like: unknown (no known mistake explains what was seen)\n" in out
    assert out.endswith(f" --cases '{CHUNKS}'\n")


def test_an_unknown_mistake_is_cut_with_the_port_itself(
    call: Call, red: tuple[Path, Path, Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, directory, _ = red
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(mutants, "MUTANTS", {"gelu-erf": MUTANTS["gelu-erf"]})
    _, out, _ = call("diagnose", str(directory))
    assert "looks like: unknown" in out
    assert out.endswith(f" --cases '{CHUNKS}' --tokens 2\n")


def test_mistakes_that_cannot_be_told_apart_are_all_named(
    call: Call, red: tuple[Path, Path, Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, directory, _ = red
    monkeypatch.setattr(mutants, "MUTANTS", {"one": MUTANT, "gelu-erf": MUTANTS["gelu-erf"], "two": MUTANT})
    _, out, _ = call("diagnose", str(directory))
    assert "looks like one of: one, two\n" in out
    _, out, _ = call("diagnose", str(directory), "--json")
    told = json.loads(out)
    assert (told["mistake"], told["cannot_be_told_apart"]) == (None, ["one", "two"])
