"""A thousand misbehaviours of a port: no traceback, no hang, no green verdict, no file where none should be."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import pytest

from conformance.adapters.external.limits import Limits
from conformance.adapters.external.process import ProcessAdapter
from conformance.judging.judge import Judge
from tests.support.installed import FIXTURES
from tests.support.runs import PORTS

QUESTIONS = 1000
TIMEOUT = 0.4
KINDS = ("module/rms-norm/", "module/rope/", "module/softcap/", "module/gelu-tanh/")


@pytest.mark.slow
def test_a_thousand_misbehaviours(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    words = [sys.executable, "-S", "-E", str(PORTS / "fuzzed_port.py"), "7", str(count)]
    port = ProcessAdapter(words, Limits(seconds=TIMEOUT))
    judge = Judge(FIXTURES, port, "f32")
    cases = [case_id for case_id in FIXTURES.case_ids if case_id.startswith(KINDS)]
    outcomes: dict[str, int] = {}
    slowest = 0.0
    for case_id in itertools.islice(itertools.cycle(cases), QUESTIONS):
        start = time.perf_counter()
        verdict = judge.judge(case_id)
        slowest = max(slowest, time.perf_counter() - start)
        outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
        assert verdict.outcome in ("error", "fail", "skip"), (case_id, verdict.note)
        assert "\n" not in verdict.note
        assert "Traceback" not in verdict.note
    folder = port._file("x").parent
    assert {path.name for path in folder.iterdir()} <= {"stderr.txt"}
    assert {path.name for path in tmp_path.iterdir()} == {"count"}
    assert outcomes["error"] > QUESTIONS / 3
    assert outcomes["fail"] > 10  # well-formed files with another tensor
    assert slowest < TIMEOUT + 5  # seconds: the port is given up, killed and started again
    port.close()
