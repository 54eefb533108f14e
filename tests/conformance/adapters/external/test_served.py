"""The protocol carries everything: the same implementation in this process and in another gives the same answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conformance.adapters.base import Adapter, PromptRequest, Refused, Skip
from conformance.adapters.external.process import ProcessAdapter
from conformance.adapters.registry import create
from conformance.judging.judge import Judge
from conformance.judging.prompts import PromptJudge
from conformance.judging.question import Question
from tests.support.installed import FIXTURES
from tests.support.runs import PORTS

CASES = [
    *(case_id for case_id in FIXTURES.case_ids if case_id.startswith(("module/", "layer/trap", "attention/e2b"))),
    *(case_id for case_id in FIXTURES.case_ids if case_id.startswith("forward/trap-eps/")),
    *(case_id for case_id in FIXTURES.case_ids if case_id.startswith("forward/e2b-mini/") and "padded" in case_id),
]


@pytest.fixture(scope="module")
def served() -> Iterator[ProcessAdapter]:
    adapter = ProcessAdapter([sys.executable, str(PORTS / "served.py"), "oracle"])
    yield adapter
    adapter.close()


@pytest.fixture(scope="module")
def here() -> Adapter:
    return create("oracle")


def test_the_same_is_said_of_it(served: ProcessAdapter, here: Adapter) -> None:
    assert served.hello() == here.hello()


def test_every_answer_is_the_same_to_the_bit(served: ProcessAdapter, here: Adapter) -> None:
    assert {"module", "attention", "forward"} <= {case_id.split("/")[0] for case_id in CASES}
    for case_id in CASES:
        request = Question.of(FIXTURES, case_id).request("f64")
        there, answer = served.run(request), here.run(request)
        assert there.keys() == answer.keys(), case_id
        for name, tensor in answer.items():
            assert there[name].dtype == tensor.dtype, (case_id, name)
            assert np.array_equal(there[name], tensor, equal_nan=True), (case_id, name)


def test_every_verdict_is_a_pass(served: ProcessAdapter) -> None:
    judge = Judge(FIXTURES, served, "f64")
    assert {judge.judge(case_id).outcome for case_id in CASES if judge.asks(case_id)} == {"pass"}


def test_prompts_refusals_and_ids_travel(real_tokenizer_or_none: Path | None) -> None:
    adapter = ProcessAdapter([sys.executable, str(PORTS / "served.py"), "mlx_impl"])
    judge = PromptJudge(FIXTURES.prompts, adapter, real_tokenizer_or_none)
    for name in ("tool-string-arguments", "reasoning-preserved", "tools-key-order", "user-combining-nfd"):
        verdict = judge.judge(f"prompt/chat/{name}/thinking-on")
        assert (verdict.outcome, verdict.compared) == ("pass", 20), verdict.note
    with pytest.raises(Refused, match="expected one of system"):
        adapter.prompt(PromptRequest(messages=[{"role": "x"}], template="small@2026-07-09"))
    adapter.close()


def test_what_is_not_offered_is_skipped(served: ProcessAdapter) -> None:
    with pytest.raises(Skip, match="builds no prompts"):
        served.prompt(PromptRequest(messages=[], template="small@2026-07-09"))
    with pytest.raises(Skip, match="has no tokenizer"):
        served.encode("x", Path("tokenizer.json"))


@pytest.fixture
def real_tokenizer_or_none() -> Path | None:
    from conformance.fetch.cache import tokenizer_path

    return tokenizer_path() if tokenizer_path().is_file() else None
