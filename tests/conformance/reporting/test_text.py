"""What a failed case says to the people who read it."""

from __future__ import annotations

from conformance.judging.judge import Judge
from conformance.reporting.text import describe
from tests.support.fakes import Change, Taps, parrot
from tests.support.installed import FIXTURES

CASE = "forward/e2b-mini/uniform-l9/no-cache"
TAPS = [tap.name for tap in FIXTURES.taps(FIXTURES.case(CASE))]


def described(change: Change) -> list[str]:
    verdict = Judge(FIXTURES, parrot(FIXTURES, change), "f32").judge(CASE)
    return describe(verdict, "the command").splitlines()


def doubled_from(index: int, *, but: tuple[int, ...] = ()) -> Change:
    wrong = [name for i, name in enumerate(TAPS) if i >= index and i not in but]
    return lambda taps: {name: value * 2 if name in wrong else value for name, value in taps.items()}


def test_the_first_divergence_stands_out_with_its_surroundings() -> None:
    lines = described(doubled_from(20, but=(22,)))
    case = FIXTURES.case(CASE)
    assert lines[0] == f"{CASE}: {case.purpose}"
    assert lines[1] == f"first divergence: {TAPS[20]}"
    assert lines[2].startswith("  got ")
    assert lines[3].startswith("  relative RMS error 1.00e+00 (tolerance ")
    assert lines[4] == "taps in execution order, error/tolerance:"
    assert lines[5] == "  ... 16 earlier taps, none of which fails"
    assert [line.split()[1] for line in lines[6:19]] == TAPS[16:29]
    assert [line.split()[0] for line in lines[6:19]] == ["ok"] * 4 + ["FAIL"] * 2 + ["ok"] + ["FAIL"] * 6
    later = len(TAPS) - 29 + 3  # the figures of the logits come after the taps; twice the logits pick the same token
    assert lines[19] == f"  ... {later} later taps, {later - 1} of which fail"
    assert lines[20:] == ["reproduce: the command"]


def test_a_failure_at_the_very_first_tap_has_nothing_before_it() -> None:
    lines = described(doubled_from(0))
    assert lines[5].split()[:2] == ["FAIL", TAPS[0]]


def test_taps_that_are_not_offered_are_told_from_those_that_pass() -> None:
    def change(taps: Taps) -> Taps:
        return {"logits": taps["logits"] * 2}

    lines = described(change)
    assert "first divergence: logits" in lines
    assert f"       - {TAPS[-2]} (not offered)" in lines


def test_a_wrong_shape_has_no_error_to_show() -> None:
    lines = described(lambda taps: {**taps, "logits": taps["logits"][:, 1:]})
    width = FIXTURES.golden(FIXTURES.case(CASE))["logits"].shape[-1]
    shown = f"shape [1, 8, {width}], expected [1, 9, {width}] (B L V)"
    assert lines[2] == f"  {shown}"
    assert f"  FAIL logits {shown}" in lines
    assert not any("relative RMS" in line for line in lines)


def test_a_module_case_names_the_mistakes_that_it_hunts() -> None:
    case = "module/rope/proportional-at-1"
    verdict = Judge(FIXTURES, parrot(FIXTURES, lambda taps: {"y": -taps["y"]}), "f32").judge(case)
    hunts = FIXTURES.case(case).hunts
    assert hunts
    assert describe(verdict, "x").splitlines()[-2] == f"known mistakes that this case hunts: {', '.join(hunts)}"


def test_an_absent_required_tap_is_named() -> None:
    lines = described(lambda taps: {name: value for name, value in taps.items() if name != "logits"})
    assert lines[1] == "logits is required and absent"
    assert lines[-1] == "reproduce: the command"
