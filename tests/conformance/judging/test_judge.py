"""One case put to one implementation, with ports that are right or wrong in one chosen way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conformance.judging.compare import TapVerdict
from conformance.judging.examine import CaseVerdict
from conformance.judging.judge import Judge
from conformance.judging.logits_metrics import ARGMAX, KL, NLL
from gemma4_contract import FixtureError, Fixtures, Floors
from tests.support.fakes import Change, Port, Taps, parrot, raiser, skipper
from tests.support.installed import FIXTURES
from tests.support.trees import LAYER, POINTER, small_tree

PADDED = "forward/e2b-mini/uniform-l19/padded"
LAYER_TAPS = [tap.name for tap in FIXTURES.taps(FIXTURES.case(LAYER))]


def judged(case: str, change: Change | None = None, profile: str = "f32") -> CaseVerdict:
    return Judge(FIXTURES, parrot(FIXTURES, change), profile).judge(case)


def without(*names: str) -> Change:
    return lambda taps: {name: value for name, value in taps.items() if name not in names}


def doubled(*names: str) -> Change:
    return lambda taps: {name: value * 2 if name in names else value for name, value in taps.items()}


# Outcomes


@pytest.mark.parametrize("case", [LAYER, POINTER, PADDED, "module/shared-kv-donors/e2b", "module/rms-norm/zeros"])
def test_the_golden_itself_passes(case: str) -> None:
    verdict = judged(case)
    assert (verdict.outcome, verdict.first_divergence, verdict.note) == ("pass", None, "")
    figures = [KL, NLL, ARGMAX] if case.startswith("forward/") else []
    assert [tap.name for tap in verdict.taps] == [tap.name for tap in FIXTURES.taps(FIXTURES.case(case))] + figures
    assert {tap.status for tap in verdict.taps} == {"pass"}


def test_the_last_tap_is_required() -> None:
    verdict = judged(LAYER, without("model.layers.0.output"))
    assert verdict.outcome == "fail"
    assert verdict.note == "model.layers.0.output is required and absent"
    assert verdict.first_divergence is None


def test_of_a_sub_graph_any_tap_will_do_but_there_must_be_one() -> None:
    case = "subgraph/e2b-mini/full-own"
    names = [tap.name for tap in FIXTURES.case(case).taps]
    assert judged(case, without(*names[1:])).outcome == "pass"
    assert judged(case, without(*names)).note == f"{names[-1]} is required and absent"


def test_no_other_tap_is_required() -> None:
    verdict = judged(LAYER, without(*LAYER_TAPS[:-1]))
    assert verdict.outcome == "pass"
    assert [tap.status for tap in verdict.taps] == ["absent"] * (len(LAYER_TAPS) - 1) + ["pass"]


def test_an_empty_answer_fails() -> None:
    assert judged(LAYER, lambda _: {}).outcome == "fail"


def test_a_tap_that_nobody_asked_for_is_ignored() -> None:
    assert judged(LAYER, lambda taps: {**taps, "mlp": np.full(3, np.nan)}).outcome == "pass"


def test_a_skip_is_told_with_the_reason_of_the_port() -> None:
    verdict = Judge(FIXTURES, skipper(), "f32").judge(LAYER)
    assert (verdict.outcome, verdict.note, verdict.taps) == ("skip", "no layer here", ())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("two\nlines"), "ValueError: two lines"),
        (KeyError("logits"), "KeyError: 'logits'"),
        (AssertionError(), "AssertionError:"),
        (MemoryError("too much"), "MemoryError: too much"),
    ],
)
def test_a_port_that_raises_is_an_error_in_one_line(error: Exception, told: str) -> None:
    verdict = Judge(FIXTURES, raiser(error), "f32").judge(LAYER)
    assert verdict.outcome == "error"
    assert verdict.note.startswith(f"the implementation raised {told} (fakes.py:")
    assert "\n" not in verdict.note


@pytest.mark.parametrize("index", [0, 3, len(LAYER_TAPS) - 1])
def test_the_first_divergence_is_the_first_failing_tap_in_execution_order(index: int) -> None:
    def change(taps: Taps) -> Taps:
        wrong = doubled(*LAYER_TAPS[index:])(taps)
        return {name: wrong[name] for name in reversed(LAYER_TAPS)}

    first = judged(LAYER, change).first_divergence
    assert isinstance(first, TapVerdict)
    assert first.name == LAYER_TAPS[index]


def test_one_wrong_tap_fails_the_case_whatever_comes_behind_it() -> None:
    verdict = judged(LAYER, doubled(LAYER_TAPS[2]))
    assert verdict.outcome == "fail"
    assert [tap.name for tap in verdict.taps if tap.status == "fail"] == [LAYER_TAPS[2]]


# Pads


def at_pads(value: float, *, pads: bool) -> Change:
    """A value in the first pad of the second row, or in its first token, of every tap."""
    specs = {tap.name: tap for tap in FIXTURES.taps(FIXTURES.case(PADDED))}
    pad = FIXTURES.inputs(FIXTURES.case(PADDED))["valid"][1].argmax() - 1

    def change(taps: Taps) -> Taps:
        for name, tap in taps.items():
            index: list[int | slice] = [slice(None)] * tap.ndim
            index[specs[name].axes.index("B")] = 1
            index[specs[name].axes.index("L")] = int(pad) if pads else int(pad) + 1
            tap[tuple(index)] = value
        return taps

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_pads_are_masked_out_of_every_tap(value: float) -> None:
    assert judged(PADDED, at_pads(value, pads=True)).outcome == "pass"
    assert {tap.status for tap in judged(PADDED, at_pads(value, pads=False)).taps} == {"fail"}


# What is asked


def test_the_port_is_told_the_question_and_no_expected_value() -> None:
    port = parrot(FIXTURES)
    Judge(FIXTURES, port, "f32").judge(PADDED)
    (request,) = port.asked
    case = FIXTURES.case(PADDED)
    assert (request.case, request.kind, request.profile) == (PADDED, "forward", "f32")
    assert request.model_dir == FIXTURES.model_dir("e2b-mini")
    assert request.plan == case.plan
    assert set(request.inputs) == {"ids", "positions", "valid"}
    assert request.want[-1] == "logits"
    assert not any(name.endswith("self_attn.probs") for name in request.want)


def test_probabilities_are_asked_without_a_cache_and_without_pads_alone() -> None:
    for case, is_asked in ((POINTER, True), ("forward/e2b-mini/uniform-l2/one-shot", False), (LAYER, True)):
        port = parrot(FIXTURES)
        Judge(FIXTURES, port, "f32").judge(case)
        assert any(name.endswith("self_attn.probs") for name in port.asked[0].want) == is_asked


def test_a_case_of_another_profile_is_skipped_and_not_asked() -> None:
    port = raiser(AssertionError("asked"))
    judge = Judge(FIXTURES, port, "f32")
    verdict = judge.judge("module/embedding/rounded-scale-bf16")
    assert (verdict.outcome, verdict.note) == ("skip", "asked in bf16 only")
    assert port.asked == []
    assert not judge.asks("module/embedding/rounded-scale-bf16")
    assert judge.asks("module/embedding/width-96")


# Fixtures at fault


def test_a_missing_floor_is_the_fault_of_the_fixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = FIXTURES.floors("f32")
    gone = {case: {t: f for t, f in taps.items() if t != LAYER_TAPS[1]} for case, taps in stored.floors.items()}
    lacking = Floors.model_validate(stored.model_dump() | {"floors": gone})
    monkeypatch.setattr(Fixtures, "floors", lambda *_: lacking)
    with pytest.raises(FixtureError, match=rf"f32\.json: got no floor of {LAYER_TAPS[1]} in {LAYER}, expected one"):
        judged(LAYER)


def test_a_profile_without_floors_is_the_fault_of_the_fixtures(tmp_path: Path) -> None:
    root = small_tree(tmp_path / "fixtures")
    (root / "floors" / "f32.json").unlink()
    fixtures = Fixtures(root)
    with pytest.raises(FixtureError, match=r"floors/f32\.json: got No such file"):
        Judge(fixtures, parrot(fixtures), "f32").judge(LAYER)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_checkpoint_is_never_shown_to_the_port(tmp_path: Path, file: str) -> None:
    root = small_tree(tmp_path / "fixtures")
    path = root / "models/e2b-mini" / file
    path.write_bytes(path.read_bytes() + b" ")
    port = raiser(AssertionError("asked"))
    with pytest.raises(FixtureError, match=r"got SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64} as SHA256SUMS says; re"):
        Judge(Fixtures(root), port, "f32").judge(LAYER)
    assert port.asked == []


def test_a_checkpoint_that_the_sums_do_not_list_is_the_fault_of_the_fixtures(tmp_path: Path) -> None:
    root = small_tree(tmp_path / "fixtures")
    sums = (root / "SHA256SUMS").read_text().splitlines(keepends=True)
    (root / "SHA256SUMS").write_text("".join(line for line in sums if "e2b-mini/config.json" not in line))
    with pytest.raises(FixtureError, match=r"config\.json: got SHA-256 .* expected a file that SHA256SUMS lists"):
        Judge(Fixtures(root), parrot(FIXTURES), "f32").judge(LAYER)


def test_a_checkpoint_is_checked_once(tmp_path: Path) -> None:
    root = small_tree(tmp_path / "fixtures")
    fixtures = Fixtures(root)
    judge = Judge(fixtures, parrot(fixtures), "f32")
    assert judge.judge(LAYER).outcome == "pass"
    (root / "SHA256SUMS").unlink()
    assert judge.judge(POINTER).outcome == "pass"


# Class exact, through the judge


def test_one_wrong_donor_fails() -> None:
    def change(taps: Taps) -> Taps:
        taps["donors"][-1] -= 1
        return taps

    assert judged("module/shared-kv-donors/e2b", change).outcome == "fail"


def test_one_bit_of_an_exact_float_tap_fails() -> None:
    case = "module/embedding/rounded-scale-bf16"
    assert judged(case, profile="bf16").outcome == "pass"
    assert judged(case, lambda taps: {"y": np.nextafter(taps["y"], 9e9)}, profile="bf16").outcome == "fail"


def test_zeros_are_demanded_where_the_golden_is_zero() -> None:
    assert judged("module/rms-norm/zeros", lambda taps: {"y": taps["y"] + 1e-30}).outcome == "fail"


def test_ports_answer_in_the_order_they_like() -> None:
    port = Port(lambda request: dict(reversed(parrot(FIXTURES).run(request).items())))
    assert Judge(FIXTURES, port, "f32").judge(LAYER).outcome == "pass"
