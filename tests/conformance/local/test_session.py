"""Which judgement a run uses, and what its report says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.adapters.oracle import OracleAdapter
from conformance.judging.question import Question
from conformance.reporting.jsonl import CaseLine
from conformance.run.session import Session
from gemma4_contract import tensors
from tests.support.installed import FIXTURES

MOE = "forward/26b-a4b-mini/uniform-l19/no-cache"


def line(impl: str, profile: str, case: str, report: Path) -> CaseLine:
    judged = Session(impl, profile, patterns=[case], report=report).judge(case).line
    assert judged is not None
    return judged


def test_a_mixture_of_experts_is_decided_in_sixteen_bits(tmp_path: Path) -> None:
    judged = line("oracle", "bf16", MOE, tmp_path)
    assert (judged.outcome, judged.judgement) == ("pass", "local")
    assert "it chose other experts there" in judged.note
    assert {tap.local.status for tap in judged.taps if tap.local} == {"pass"}
    assert [tap.name for tap in judged.taps if tap.local is None] == ["logits.kl", "logits.nll", "logits.argmax"]


@pytest.mark.parametrize(
    ("impl", "judgement"), [("oracle", "both"), ("mutant:gelu-erf", "both"), ("mutant:softcap-missing", "both")]
)
def test_a_port_with_taps_is_judged_in_both_ways(impl: str, judgement: str, tmp_path: Path) -> None:
    assert line(impl, "f32", "forward/e2b-mini/uniform-l9/chunks-5", tmp_path).judgement == judgement


def test_a_file_of_answers_is_judged_by_goldens_alone(tmp_path: Path) -> None:
    answer = OracleAdapter("split").run(Question.of(FIXTURES, MOE).request("bf16"))
    dump = tmp_path / "answers.safetensors"
    tensors.write(dump, {f"{MOE}/{name}": value for name, value in answer.items()})
    judged = line(f"dump:{dump}", "bf16", MOE, tmp_path / "report")
    assert (judged.outcome, judged.judgement) == ("undecidable", "chained")
    assert [tap for tap in judged.taps if tap.local] == []


def test_a_module_case_has_no_taps_of_its_own(tmp_path: Path) -> None:
    assert line("oracle", "f32", "module/rms-norm/weighted", tmp_path).judgement == "chained"
