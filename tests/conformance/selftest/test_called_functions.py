"""The cases that call the functions which a mutant replaces."""

from __future__ import annotations

import dataclasses

import pytest

from conformance.selftest.called_functions import calling_cases, cases_of
from conformance.selftest.kill_matrix import row
from gemma4_contract import Fixtures
from reference.mutants import MUTANTS
from reference.oracle.ops import Ops
from tests.support.installed import FIXTURES
from tests.support.kill_matrices import AT_1, EMBEDDING, FEW, FULL, GELU, L1, L2, ROPE, SCALE, SLIDING


def test_the_cases_that_call_a_function_are_found(few: Fixtures) -> None:
    calls = calling_cases(few, "f32")
    assert cases_of(ROPE, calls, few.case_ids) == [AT_1, SLIDING, FULL, L1, L2]
    assert cases_of(SCALE, calls, few.case_ids) == [EMBEDDING, L1, L2]
    assert cases_of(GELU, calls, few.case_ids) == [SLIDING, FULL, L1, L2]
    assert calls["Decoder.layer"] == calls["TextConfig.from_dict"] == calls["Loader.checked"] == [SLIDING, FULL, L1, L2]
    assert calls["Decoder.forward"] == [L1, L2]
    assert "Ops.experts" not in calls


def test_a_mutant_of_several_functions_is_put_to_the_cases_of_any() -> None:
    mutant = MUTANTS["layer-scalar-on-branch"]
    assert mutant.replaces == ("Decoder.feed_forward", "Decoder.weight")
    assert cases_of(mutant, {"Decoder.weight": [L2], "Decoder.feed_forward": [FULL], "Ops.rope": [L1]}, FEW) == [
        FULL,
        L2,
    ]


def test_the_oracle_is_whole_again(few: Fixtures) -> None:
    calling_cases(few, "f32")
    assert row(FIXTURES, dataclasses.replace(ROPE, wrong=Ops), "f32", FEW).kills == ()


def test_a_case_of_another_profile_is_not_reached(few: Fixtures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(few.__dict__, "case_ids", ("module/embedding/rounded-scale-bf16", EMBEDDING))
    assert cases_of(SCALE, calling_cases(few, "f32"), few.case_ids) == [EMBEDDING]
    assert cases_of(SCALE, calling_cases(few, "bf16"), few.case_ids) == ["module/embedding/rounded-scale-bf16"]
