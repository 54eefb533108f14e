"""A known mistake as an implementation to be judged: `--impl mutant:ID`."""

from __future__ import annotations

import pytest

from tests.support.runs import one_line, run_command, run_suite

CASE = ("--cases", "module/inv-freq/e2b-full")


def test_a_known_mistake_is_judged_and_fails() -> None:
    done = run_suite("--impl", "mutant:prop-rope-denominator", *CASE)
    assert done.returncode == 1
    assert "oracle blas, prop-rope-denominator" in done.stdout
    assert "first divergence: inv_freq" in done.stdout
    assert "reproduce: pytest conformance/ --impl mutant:prop-rope-denominator --profile f32" in done.stdout


def test_another_mistake_passes_there() -> None:
    done = run_suite("--impl", "mutant:gelu-erf", *CASE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("typo", "hint"),
    [
        (
            "prop-rope-denomintor",
            "did you mean prop-rope-denominator or prop-rope-contiguous-prefix or prop-rope-last-pairs?",
        ),
        ("", "see `gemma4-conformance bugs`"),
    ],
)
def test_an_unknown_one_is_one_line_with_the_nearest(typo: str, hint: str) -> None:
    done = run_command("run", "--impl", f"mutant:{typo}", *CASE)
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr) == f"--impl mutant:ID: got {typo!r}, expected the id of a known mistake; {hint}"


def test_it_needs_the_reference() -> None:
    done = run_suite("--impl", "mutant:gelu-erf", *CASE, env={"SUITE_BLOCKED": "reference"})
    assert done.returncode == 3
    assert one_line(done.stderr).startswith("Exit: --impl mutant:gelu-erf: No module named 'reference'")
