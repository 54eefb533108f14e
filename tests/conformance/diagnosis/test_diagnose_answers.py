"""`diagnose` on reports that a test wrote, and on dumps of one case."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from conformance.adapters.mutant import MutantAdapter
from conformance.reporting import jsonl as report
from gemma4_contract import tensors
from gemma4_contract.tensors import Array
from reference import mutants
from reference.config import Rope
from tests.support.commands import Call
from tests.support.diagnoses import MUTANT, NO_CACHE, dump, reported
from tests.support.fakes import parrot, raiser
from tests.support.installed import FIXTURES
from tests.support.trees import LAYER, POINTER, ROPE


def test_a_green_report_is_green(call: Call, tmp_path: Path) -> None:
    directory = reported(tmp_path, FIXTURES, parrot(FIXTURES), ROPE, LAYER)
    assert call("diagnose", directory) == (0, "nothing failed\n", "")
    code, out, _ = call("diagnose", directory, "--json")
    assert (code, json.loads(out)) == (0, {"failing": 0, "judged": 2, "wrong_prompts": []})


def test_wrong_prompts_are_told_with_the_tensors_or_alone(call: Call, tmp_path: Path) -> None:
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


def test_a_port_that_stops_is_told_with_its_last_words(call: Call, tmp_path: Path) -> None:
    directory = reported(tmp_path, FIXTURES, raiser(ValueError("bad luck")), LAYER)
    code, out, _ = call("diagnose", directory)
    assert code == 1
    assert out.startswith(
        f"1 of 1 cases fail\nno answer to {LAYER}\n  the implementation raised ValueError: bad luck (fakes.py:"
    )


def test_markup_in_what_is_told_stays_as_it_is(call: Call, tmp_path: Path) -> None:
    directory = reported(tmp_path, FIXTURES, raiser(ValueError("[red]bad luck[/red] [x]")), LAYER)
    _, out, _ = call("diagnose", directory)
    assert "ValueError: [red]bad luck[/red] [x] (" in out


def test_what_passes_tells_mistakes_apart(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_dump_of_one_case_is_enough_for_a_name(call: Call, tmp_path: Path) -> None:
    path = dump(tmp_path / "phone.safetensors", NO_CACHE)
    code, out, err = call("diagnose", path, "--case", NO_CACHE)
    assert (code, err) == (1, "")
    assert out.startswith("1 of 1 cases fail\nfirst divergence: model.layers.4.self_attn.q_rope\n")
    assert "looks like: prop-rope-denominator (RoPE)\n" in out
    assert out.endswith(f"reproduce: pytest conformance/ --impl NAME --profile f32 --cases '{NO_CACHE}' --tokens 2\n")


def test_a_dump_of_the_logits_alone_is_judged_too(call: Call, tmp_path: Path) -> None:
    path = dump(tmp_path / "phone.safetensors", NO_CACHE, lambda taps: {"logits": taps["logits"]})
    code, out, _ = call("diagnose", path, "--case", NO_CACHE)
    assert code == 1
    assert "first divergence: logits\n" in out
    assert "looks like: prop-rope-denominator (RoPE)\n" in out


def test_a_dump_that_is_right_is_green(call: Call, tmp_path: Path) -> None:
    tensors.write(tmp_path / "right.safetensors", FIXTURES.golden(FIXTURES.case(POINTER)))
    assert call("diagnose", str(tmp_path / "right.safetensors"), "--case", POINTER) == (0, "nothing failed\n", "")


def test_a_dump_claims_the_arithmetic_that_is_named(call: Call, tmp_path: Path) -> None:
    halves = {name: x.astype(np.float16) for name, x in FIXTURES.golden(FIXTURES.case(LAYER)).items()}
    tensors.write(tmp_path / "halves.safetensors", halves)
    options = ("diagnose", str(tmp_path / "halves.safetensors"), "--case", LAYER)
    assert call(*options, "--profile", "f16")[0] == 0
    code, out, _ = call(*options)
    assert code == 1
    assert "dtype float16, expected float32 or float64" in out
    assert "looks like: unknown" in out
