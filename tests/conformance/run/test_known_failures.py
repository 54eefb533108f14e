"""The strict lists of known failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance import known_failures
from conformance.known_failures import KnownFailures
from gemma4_contract import FixtureError, Fixtures

IDS = Fixtures().case_ids


def listed(tmp_path: Path, text: str) -> KnownFailures:
    path = tmp_path / "port.txt"
    path.write_text(text, encoding="utf-8")
    return KnownFailures.read(path)


def test_an_entry_has_profile_glob_and_reason(tmp_path: Path) -> None:
    known = listed(tmp_path, "# a comment\n\nf32 forward/*/tokens  # bug 12, see https://example.org/#12\n")
    assert known.reason("f32", "forward/e2b-mini/uniform-l9/tokens") == "bug 12, see https://example.org/#12"
    assert known.reason("bf16", "forward/e2b-mini/uniform-l9/tokens") is None
    assert known.reason("f32", "forward/e2b-mini/uniform-l9/no-cache") is None
    known.check_used(IDS)


def test_a_wrong_answer_and_none_at_all_are_listed_apart(tmp_path: Path) -> None:
    known = listed(tmp_path, "f32 forward/*/tokens  # wrong\nf32 forward/*/padded stops  # refused\n")
    tokens, padded, other = (f"forward/e2b-mini/uniform-l19/{plan}" for plan in ("tokens", "padded", "no-cache"))
    explained = {
        (case, outcome)
        for case in (tokens, padded, other)
        for outcome in ("pass", "fail", "error", "skip")
        if known.explains("f32", case, outcome)
    }
    assert explained == {(tokens, "fail"), (padded, "error")}
    assert known.reason("f32", padded) == "refused"
    assert not known.explains("bf16", tokens, "fail")
    expected = {outcome: known.expected("f32", padded, outcome) for outcome in ("pass", "skip", "error", "fail")}
    assert expected == {"pass": "refused", "skip": "refused", "error": "refused", "fail": None}


@pytest.mark.parametrize(
    "line",
    [
        "f32 forward/*",
        "f32 forward/* #",
        "f32  # no glob",
        "f32 forward/* more  # three words",
        "f32 forward/* stops more  # four words",
        "f32 stops",
        "# no\nf32",
        "f33 forward/*  # no such profile",
    ],
)
def test_a_malformed_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(FixtureError) as caught:
        listed(tmp_path, f"f32 forward/*  # fine\n{line}\n")
    assert caught.value.path == f"{tmp_path / 'port.txt'}:{2 + line.count(chr(10))}"
    assert "expected <profile> <case glob> [stops] # reason with a link" in str(caught.value)


def test_an_entry_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    known = listed(tmp_path, "f32 forward/*  # fine\nf32 forwards/*  # moved\n")
    with pytest.raises(FixtureError, match=r"got forwards/\*, which matches no case, .*; delete the line"):
        known.check_used(IDS)


def test_no_file_is_an_empty_list(tmp_path: Path) -> None:
    known = KnownFailures.read(tmp_path / "none.txt")
    assert known.entries == ()
    assert known.reason("f32", IDS[0]) is None


def test_the_shipped_lists_are_well_formed_and_used() -> None:
    files = sorted(Path(known_failures.__file__).parent.glob("*.txt"))
    assert files
    for file in files:
        known = KnownFailures.of(file.stem)
        assert known.entries
        known.check_used([*IDS, *(f"{prompt_id}/thinking-unset" for prompt_id in Fixtures().prompts.ids)])


@pytest.mark.parametrize("impl", ["port:./a/b c", "once:" + "x" * 5000])
def test_a_command_has_no_shipped_list_however_long_it_is(impl: str) -> None:
    assert KnownFailures.of(impl).entries == ()
