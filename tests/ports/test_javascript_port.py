"""The decoder in JavaScript: it conforms, and ten mistakes planted in it are caught, located and named."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.adapters.base import Adapter, PortFault
from conformance.adapters.external.process import ProcessAdapter
from conformance.adapters.registry import create
from conformance.diagnosis.diagnose import diagnose
from conformance.diagnosis.replay import verdicts_of_report
from conformance.judging.judge import Judge
from conformance.judging.prompts import PromptJudge
from conformance.reporting import jsonl as report
from gemma4_contract.judged import judged_digest
from reference.mutants import MUTANTS
from tests.support import ROOT
from tests.support.installed import FIXTURES

PORT = ROOT / "ports" / "javascript"
NODE = shutil.which("node")
PLANTED = {
    "prop-rope-denominator": "q_rope",
    "gelu-erf": "mlp.act",
    "embed-scale-missing": "model.embed_tokens",
    "ple-combine-scale-missing": "model.ple",
    "sliding-window-one-more": "self_attn.probs",
    "donor-first-of-type": "self_attn.k_read",
    "router-not-renormalised": "router.combine",
    "softcap-missing": "logits",
    "v-norm-missing": "v_norm",
    "layer-scalar-dropped": "output",
}
"""Mistake -> where it is first seen in a whole pass."""
ENOUGH = ("module/", "layer/", "attention/", "forward/e2b-mini/", "forward/26b-a4b-mini/")
"""Cases that tell the ten from all others of the catalogue."""

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def started(*options: str) -> ProcessAdapter:
    assert NODE is not None
    return ProcessAdapter([NODE, str(PORT / "adapter.mjs"), *options])


@pytest.fixture(scope="module")
def port() -> Iterator[ProcessAdapter]:
    adapter = create("javascript")
    assert isinstance(adapter, ProcessAdapter)
    yield adapter
    adapter.close()


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["f64", "f32"])
def test_every_case_passes_and_every_tap_is_offered(port: ProcessAdapter, profile: str) -> None:
    judge = Judge(FIXTURES, port, profile)
    for case_id in FIXTURES.case_ids:
        if judge.asks(case_id) and not case_id.startswith("subgraph/"):  # of its kinds the one it does not offer
            verdict = judge.judge(case_id)
            assert verdict.outcome == "pass", (case_id, verdict.note, verdict.first_divergence)
            assert [tap.name for tap in verdict.taps if tap.status == "absent"] == [], case_id


@pytest.mark.slow
def test_every_prompt_is_equal(port: ProcessAdapter) -> None:
    judge = PromptJudge(FIXTURES.prompts, port, None)
    verdicts = [judge.judge(question) for question in judge.questions() if "/chat/" in question]
    assert {verdict.outcome for verdict in verdicts} == {"pass"}


def reported(directory: Path, adapter: Adapter) -> Path:
    """A report on enough."""
    hello = adapter.hello()
    report.start(
        directory,
        report.RunLine(
            impl="port:node",
            implementation=hello.name,
            version=hello.version,
            language=hello.language,
            device=hello.device,
            profile="f64",
            fixtures=judged_digest(FIXTURES),
            products_error=None,
        ),
    )
    judge = Judge(FIXTURES, adapter, "f64")
    for case_id in FIXTURES.case_ids:
        if case_id.startswith(ENOUGH) and judge.asks(case_id):
            report.append(directory, report.case_line(directory, judge.judge(case_id), None))
    return directory


@pytest.mark.slow  # ten reports, each compared with the whole catalogue
@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_caught_located_and_named(mistake: str, tmp_path: Path) -> None:
    adapter = started("--mistake", mistake)
    directory = reported(tmp_path / "report", adapter)
    adapter.close()
    _, verdicts = verdicts_of_report(FIXTURES, directory)
    found = diagnose(FIXTURES, "f64", verdicts, MUTANTS, None)
    assert found is not None
    first = found.shown_by.first_divergence
    assert first is not None
    assert first.name.endswith(PLANTED[mistake]), first.name
    assert found.naming.mutant is not None, found.naming
    assert found.naming.mutant.id == mistake


def test_an_unknown_mistake_is_refused() -> None:
    with pytest.raises(PortFault, match="the port died: exit 2; its last words: "):
        started("--mistake", "nonsense")


def test_its_own_tests_pass() -> None:
    assert NODE is not None
    command = [NODE, "--test", str(PORT / "decoder.test.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " fail 0\n" in done.stdout


def test_it_has_no_dependency() -> None:
    assert not (PORT / "node_modules").exists()
    package = PORT / "package.json"
    assert not package.exists() or "dependencies" not in json.loads(package.read_text(encoding="utf-8"))
