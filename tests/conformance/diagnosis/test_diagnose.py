"""`diagnose` and `bugs` as their users run them: from a red run to the name of the mistake, and errors in one line."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conformance import cli
from conformance.adapters.mutant import MutantAdapter
from conformance.cli import bugs as bugs_command
from conformance.judging.judge import Judge
from conformance.judging.question import Question
from conformance.reporting import jsonl as report
from conformance.reporting.jsonl import RunLine
from conformance.selftest import catalogue, catalogue_pages
from gemma4_contract import Fixtures, tensors
from gemma4_contract.judged import judged_digest
from gemma4_contract.tensors import Array
from reference import mutants
from reference.config import Rope
from reference.mutants import MUTANTS
from tests.support import ROOT
from tests.support.fakes import parrot, raiser
from tests.support.installed import FIXTURES
from tests.support.runs import Done, one_line, run_command, run_suite
from tests.support.trees import LAYER, POINTER, ROPE, small_tree

MUTANT = MUTANTS["prop-rope-denominator"]
CASES = "forward/e2b-mini/uniform-l9/*"
NO_CACHE = "forward/e2b-mini/uniform-l9/no-cache"
CHUNKS = "forward/e2b-mini/uniform-l9/chunks-5"
PORT = """
from conformance.adapters.mutant import MutantAdapter
from reference.mutants import MUTANTS

def Port():
    return MutantAdapter(MUTANTS["prop-rope-denominator"], "split")
"""
FEW = {name: MUTANTS[name] for name in ("prop-rope-denominator", "rope-full-rotation", "gelu-erf")}

Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Called:
    """The command in this process, with a catalogue of three mistakes."""
    monkeypatch.delenv("GEMMA4_FIXTURES", raising=False)
    monkeypatch.setattr(mutants, "MUTANTS", FEW)

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gemma4-conformance", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(stopped.value.code or 0), out, err

    return called


def path_with(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


# A red run, and what is wrong with it


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


def test_the_same_for_machines(call: Called, red: tuple[Path, Path, Done], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, directory, _ = red
    monkeypatch.syspath_prepend(folder)
    code, out, err = call("diagnose", str(directory), "--json")
    assert (code, err) == (1, "")
    told = json.loads(out)
    assert told["fault"].startswith("got ")
    assert told["words"]
    assert told["reproduce"].endswith(" --tokens 2")
    del told["fault"], told["words"], told["reproduce"]
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
def test_a_port_that_is_not_installed_here_is_diagnosed_still(call: Called, red: tuple[Path, Path, Done]) -> None:
    """The mistake itself stands in for the port when tokens are cut."""
    _, directory, _ = red
    code, out, err = call("diagnose", str(directory / "report.jsonl"))
    assert (code, err) == (1, "")
    assert "looks like: prop-rope-denominator (RoPE)\n" in out
    assert out.endswith(" --tokens 2\n")


@pytest.mark.usefixtures("elsewhere")
def test_an_unknown_mistake_is_called_unknown_and_nothing_is_cut_without_the_port(
    call: Called, red: tuple[Path, Path, Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, directory, _ = red
    monkeypatch.setattr(mutants, "MUTANTS", {"gelu-erf": MUTANTS["gelu-erf"]})
    code, out, _ = call("diagnose", str(directory))
    assert code == 1
    assert "looks like: unknown (no known mistake explains what was seen)\n" in out
    assert out.endswith(f" --cases '{CHUNKS}'\n")


def test_an_unknown_mistake_is_cut_with_the_port_itself(
    call: Called, red: tuple[Path, Path, Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, directory, _ = red
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(mutants, "MUTANTS", {"gelu-erf": MUTANTS["gelu-erf"]})
    _, out, _ = call("diagnose", str(directory))
    assert "looks like: unknown" in out
    assert out.endswith(f" --cases '{CHUNKS}' --tokens 2\n")


def test_mistakes_that_cannot_be_told_apart_are_all_named(
    call: Called, red: tuple[Path, Path, Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, directory, _ = red
    monkeypatch.setattr(mutants, "MUTANTS", {"one": MUTANT, "gelu-erf": MUTANTS["gelu-erf"], "two": MUTANT})
    _, out, _ = call("diagnose", str(directory))
    assert "looks like one of: one, two\n" in out
    _, out, _ = call("diagnose", str(directory), "--json")
    told = json.loads(out)
    assert (told["mistake"], told["cannot_be_told_apart"]) == (None, ["one", "two"])


# Reports of other runs


def reported(directory: Path, fixtures: Fixtures, port: Any, *cases: str, impl: str = "nobody") -> str:
    """The folder of a report on these cases, written in this process."""
    run = RunLine(
        impl=impl,
        implementation="fake",
        version="1",
        language="Python",
        device="none",
        profile="f32",
        fixtures=judged_digest(fixtures),
        products_error=None,
    )
    report.start(directory, run)
    judge = Judge(fixtures, port, "f32")
    for case in cases:
        report.append(directory, report.case_line(directory, judge.judge(case), None))
    return str(directory)


def test_a_green_report_is_green(call: Called, tmp_path: Path) -> None:
    directory = reported(tmp_path, FIXTURES, parrot(FIXTURES), ROPE, LAYER)
    assert call("diagnose", directory) == (0, "nothing failed\n", "")
    code, out, _ = call("diagnose", directory, "--json")
    assert (code, json.loads(out)) == (0, {"failing": 0, "judged": 2, "wrong_prompts": []})


def test_wrong_prompts_are_told_with_the_tensors_or_alone(call: Called, tmp_path: Path) -> None:
    directory = Path(reported(tmp_path, FIXTURES, parrot(FIXTURES), ROPE))
    for question, outcome, note, expected in (
        ("prompt/chat/user-plain/thinking-unset", "fail", "small@2026-07-09: differs from byte 5 on", None),
        ("prompt/chat/user-cjk/thinking-on", "error", "ValueError: no", None),
        ("prompt/chat/user-rtl/thinking-on", "fail", "known", "it is so"),
        ("prompt/text/digits", "pass", "", None),
    ):
        line = report.CaseLine(
            case=question,
            kind="prompt",
            level="L4",
            outcome=outcome,  # type: ignore[arg-type]
            note=note,
            expected=expected,
        )
        report.append(directory, line)
    code, out, _ = call("diagnose", str(directory))
    assert code == 1
    assert out.startswith(
        "2 questions on prompts fail\nfirst: prompt/chat/user-plain/thinking-unset: small@2026-07-09: "
    )
    assert out.endswith("--cases 'prompt/chat/user-plain/thinking-unset'\n")
    code, out, _ = call("diagnose", str(directory), "--json")
    told = json.loads(out)
    assert (code, told["failing"]) == (1, 0)
    assert [wrong["fault"] for wrong in told["wrong_prompts"]] == [
        "small@2026-07-09: differs from byte 5 on",
        "ValueError: no",
    ]


def test_a_port_that_stops_is_told_with_its_last_words(call: Called, tmp_path: Path) -> None:
    directory = reported(tmp_path, FIXTURES, raiser(ValueError("bad luck")), LAYER)
    code, out, _ = call("diagnose", directory)
    assert code == 1
    assert out.startswith(
        f"1 of 1 cases fail\nno answer to {LAYER}\n  the implementation raised ValueError: bad luck (fakes.py:"
    )


def test_markup_in_what_is_told_stays_as_it_is(call: Called, tmp_path: Path) -> None:
    directory = reported(tmp_path, FIXTURES, raiser(ValueError("[red]bad luck[/red] [x]")), LAYER)
    _, out, _ = call("diagnose", directory)
    assert "ValueError: [red]bad luck[/red] [x] (" in out


def test_what_passes_tells_mistakes_apart(call: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mistakes are the same in full layers, and one of them touches sliding layers as well."""

    class SlidingToo(MUTANT.oracle.ops):
        def inverse_frequencies(self, head_dim: int, rope: Rope) -> Array:
            return super().inverse_frequencies(head_dim, rope) * (2 if rope.rope_type == "default" else 1)

    both = dataclasses.replace(MUTANT, id="both", wrong=SlidingToo)
    monkeypatch.setattr(mutants, "MUTANTS", {"full-alone": MUTANT, "both": both})
    full, sliding = "module/rope/proportional-at-1", "module/rope/default-at-1"
    port = MutantAdapter(MUTANT, "split")
    _, out, _ = call("diagnose", reported(tmp_path, FIXTURES, port, full))
    assert "looks like one of: full-alone, both\n" in out
    _, out, _ = call("diagnose", reported(tmp_path, FIXTURES, port, full, sliding))
    assert out.startswith("1 of 2 cases fail\n")
    assert "looks like: prop-rope-denominator (RoPE)\n" in out
    assert out.endswith(f" --cases '{full}'\n")


# A dump


def dump(path: Path, case: str, change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> str:
    request = Question.of(FIXTURES, case).request("f32")
    tensors.write(path, change(MutantAdapter(MUTANT, "split").run(request)))
    return str(path)


def test_a_dump_of_one_case_is_enough_for_a_name(call: Called, tmp_path: Path) -> None:
    path = dump(tmp_path / "phone.safetensors", NO_CACHE)
    code, out, err = call("diagnose", path, "--case", NO_CACHE)
    assert (code, err) == (1, "")
    assert out.startswith("1 of 1 cases fail\nfirst divergence: model.layers.4.self_attn.q_rope\n")
    assert "looks like: prop-rope-denominator (RoPE)\n" in out
    assert out.endswith(f"reproduce: pytest conformance/ --impl NAME --profile f32 --cases '{NO_CACHE}' --tokens 2\n")


def test_a_dump_of_the_logits_alone_is_judged_too(call: Called, tmp_path: Path) -> None:
    path = dump(tmp_path / "phone.safetensors", NO_CACHE, lambda taps: {"logits": taps["logits"]})
    code, out, _ = call("diagnose", path, "--case", NO_CACHE)
    assert code == 1
    assert "first divergence: logits\n" in out
    assert "looks like: prop-rope-denominator (RoPE)\n" in out


def test_a_dump_that_is_right_is_green(call: Called, tmp_path: Path) -> None:
    tensors.write(tmp_path / "right.safetensors", FIXTURES.golden(FIXTURES.case(POINTER)))
    assert call("diagnose", str(tmp_path / "right.safetensors"), "--case", POINTER) == (0, "nothing failed\n", "")


def test_a_dump_claims_the_arithmetic_that_is_named(call: Called, tmp_path: Path) -> None:
    halves = {name: x.astype(np.float16) for name, x in FIXTURES.golden(FIXTURES.case(LAYER)).items()}
    tensors.write(tmp_path / "halves.safetensors", halves)
    options = ("diagnose", str(tmp_path / "halves.safetensors"), "--case", LAYER)
    assert call(*options, "--profile", "f16")[0] == 0
    code, out, _ = call(*options)
    assert code == 1
    assert "dtype float16, expected float32 or float64" in out
    assert "looks like: unknown" in out


# Bad input


def test_every_bad_input_is_one_line(call: Called, tmp_path: Path) -> None:
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


def test_a_report_on_other_fixtures_is_one_line(call: Called, tmp_path: Path) -> None:
    other = Fixtures(small_tree(tmp_path / "fixtures"))
    directory = reported(tmp_path / "report", other, parrot(other), ROPE)
    code, out, err = call("diagnose", directory)
    assert (code, out) == (2, "")
    assert one_line(err).startswith(f"{directory}: got a report on other fixtures (")
    assert call("diagnose", directory, "--fixtures-dir", str(other.root)) == (0, "nothing failed\n", "")


def test_a_report_in_a_profile_that_the_fixtures_do_not_have_is_one_line(call: Called, tmp_path: Path) -> None:
    directory = reported(tmp_path / "report", FIXTURES, parrot(FIXTURES), ROPE)
    file = Path(directory) / "report.jsonl"
    file.write_text(file.read_text().replace('"f32"', '"f8"'))
    for command in ("diagnose", "report"):
        code, out, err = call(command, directory)
        assert (code, out) == (2, "")
        assert one_line(err).startswith(f"{FIXTURES.root}/profiles: got no profile f8, expected f64, f32, bf16, f16; ")


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("a.safetensors", "--profile", "f8")])
def test_bad_usage(call: Called, arguments: tuple[str, ...]) -> None:
    code, out, err = call("diagnose", *arguments)
    assert (code, out) == (2, "")
    assert "─ Error ─" in err


# The catalogue

WORDS: Mapping[str, str] = {
    "symptom": MUTANT.symptom,
    "cure": MUTANT.cure,
    "first seen": "self_attn.q_rope, full layers",
}


def test_the_known_mistakes_are_listed_for_grep_and_cut() -> None:
    done = run_command("bugs")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [tuple(line.split("\t")) for line in done.stdout.splitlines()]
    assert rows == [(mutant.id, mutant.area, mutant.does) for mutant in MUTANTS.values()]
    assert len(rows) > 100


def test_the_known_mistakes_as_json(call: Called) -> None:
    code, out, err = call("bugs", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [{"id": mutant.id, "area": mutant.area, "does": mutant.does} for mutant in FEW.values()]


@pytest.mark.parametrize("width", [40, 10])
def test_a_narrow_terminal_cuts_no_id(call: Called, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bugs_command, "out", Console(force_terminal=True, width=width))
    code, out, err = call("bugs")
    assert (code, err) == (0, "")
    for mutant in FEW.values():
        assert f"\x1b[1m{mutant.id}\x1b[0m ({mutant.area})\n  {mutant.does}\n" in out


def test_one_mistake_is_shown(call: Called) -> None:
    code, out, err = call("bugs", "show", MUTANT.id)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [f"{MUTANT.id} (RoPE)", f"  {MUTANT.does}"]
    assert {f"{name}: {text}" for name, text in WORDS.items()} <= set(lines)
    assert {f"see {url}" for url in MUTANT.urls} <= set(lines)
    hunting = [case.id for case in FIXTURES.cases() if MUTANT.id in case.hunts]
    assert hunting
    assert lines[-2:] == [
        f"try: pytest conformance/ --cases '{hunting[0]}'",
        f"cases that hunt it: {', '.join(hunting)}",
    ]


def test_what_changes_nothing_says_why(call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "MUTANTS", MUTANTS)
    mutant = MUTANTS["rope-angles-low-precision"]
    _, out, _ = call("bugs", "show", mutant.id)
    assert mutant.equivalent_in
    for profile, proof in mutant.equivalent_in.items():
        assert f"changes nothing in {profile}: {proof}\n" in out


def test_one_mistake_as_json(call: Called) -> None:
    code, out, err = call("bugs", "show", MUTANT.id, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == catalogue.facts(MUTANT, FIXTURES)


@pytest.mark.parametrize(
    ("typo", "hint"),
    [
        ("prop-rope-denomintor", "did you mean prop-rope-denominator?"),
        ("rope-full", "did you mean rope-full-rotation?"),
        ("xyz", "see `gemma4-conformance bugs`"),
    ],
)
def test_a_typo_is_given_a_hint(call: Called, typo: str, hint: str) -> None:
    code, out, err = call("bugs", "show", typo)
    assert (code, out) == (2, "")
    assert one_line(err) == f"bugs show: got '{typo}', expected the id of a known mistake; {hint}"


def test_the_catalogue_as_pages(tmp_path: Path) -> None:
    done = run_command("bugs", "--markdown", str(tmp_path / "mistakes"))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'mistakes' / 'index.md'}\n", "")
    written = {page.name: page.read_text(encoding="utf-8") for page in (tmp_path / "mistakes").iterdir()}
    assert written == catalogue_pages.pages(FIXTURES)
    index = written["index.md"].splitlines()
    assert index[0] == "# Known mistakes in ports of Gemma 4"
    areas = [line.removeprefix("## ") for line in index if line.startswith("## ")]
    assert areas == list(dict.fromkeys(mutant.area for mutant in MUTANTS.values()))  # no area twice
    assert [line.split("]")[0].removeprefix("| [") for line in index if line.startswith("| [")] == list(MUTANTS)
    row = f"| [{MUTANT.id}](rope.md#{MUTANT.id}) | {MUTANT.does} | self_attn.q_rope, full layers |"
    assert row in index
    lines = [line for area in areas for line in written[catalogue_pages.page_of(area)].splitlines()]
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == list(MUTANTS)
    assert f"* Cure: {MUTANT.cure}" in lines


def test_pages_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "mistakes").write_text("a file")
    done = run_command("bugs", "--markdown", str(tmp_path / "mistakes"))
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr).startswith(f"{tmp_path / 'mistakes'}: ")
