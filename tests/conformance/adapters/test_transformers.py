"""The transformers adapter on synthetic checkpoints: taps, plans, layers, modules, and agreement with mlx-lm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from conformance.adapters.base import Skip
from gemma4_contract import Plan
from gemma4_contract.subgraph import SUBGRAPH_KINDS
from gemma4_contract.tensors import Array
from tests.support import adapter_checkpoints as c
from tests.support import adapter_requests as r
from tests.support.adapter_questions import QUESTIONS, question_request

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from conformance.adapters.module_tree_torch import torch_taps  # noqa: E402 (torch may be missing)
from conformance.adapters.transformers.adapter import (  # noqa: E402 (as above)
    TransformersAdapter,
    TransformersSdpaAdapter,
)

DTYPES: dict[str, Any] = {"f64": np.float64, "f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
TOLERANCE = {"f64": 1e-14, "f32": 5e-7, "bf16": 2e-2, "f16": 2e-3}
PLANS = {
    "one-shot": Plan(steps=[19]),
    "chunks": Plan(steps=[5, 5, 5, 4]),
    "tokens": Plan(steps=[1] * 19),
    "padded": Plan(left_pad=[0, 3]),
    "padded-two": Plan(steps=[11, 8], left_pad=[0, 10]),
}


@pytest.fixture(scope="module")
def adapters() -> dict[str, TransformersAdapter]:
    return {"eager": TransformersAdapter(), "sdpa": TransformersSdpaAdapter()}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("transformers")
    return {kind: c.write_checkpoint(root / kind, kind) for kind in c.KINDS}


@pytest.fixture(scope="module")
def single(adapters: dict[str, TransformersAdapter], directories: dict[str, Path]) -> dict[str, dict[str, Array]]:
    """The f64 taps of every kind without a cache."""
    return {kind: adapters["eager"].run(r.request(directories[kind], kind, Plan(), "f64")) for kind in c.KINDS}


def test_hello_names_both_attentions_and_offers_f64_with_eager_alone(adapters: dict[str, TransformersAdapter]) -> None:
    eager, sdpa = adapters["eager"].hello(), adapters["sdpa"].hello()
    assert (eager.name, sdpa.name, eager.family) == ("transformers-eager", "transformers-sdpa", "torch")
    assert (eager.profiles, sdpa.profiles) == (("f64", "f32", "bf16", "f16"), ("f32", "bf16", "f16"))
    assert set(eager.kinds) == {"forward", *SUBGRAPH_KINDS} | {q.kind for q in QUESTIONS.values()} - {"softcap"}


@pytest.mark.parametrize("kind", c.KINDS)
def test_offers_every_tap_with_its_name_and_shape(
    kind: str, adapters: dict[str, TransformersAdapter], directories: dict[str, Path]
) -> None:
    attention = "model.layers.1.self_attn."
    probs = f"{attention}probs"
    keys = c.tap_shapes(kind)[f"{attention}k_rope"]
    read = {f"{attention}k_read": keys, f"{attention}v_read": keys}
    expected = c.tap_shapes(kind) | {probs: (1, 4, c.LENGTH, c.LENGTH)} | read
    taps = adapters["eager"].run(r.request(directories[kind], kind, Plan(), want=tuple(expected)))
    assert {tap: value.shape for tap, value in taps.items()} == expected
    assert set(adapters["sdpa"].run(r.request(directories[kind], kind, Plan(), want=(probs, "logits")))) == {"logits"}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", c.KINDS)
def test_plans_agree(
    kind: str,
    plan: str,
    adapters: dict[str, TransformersAdapter],
    directories: dict[str, Path],
    single: dict[str, dict[str, Array]],
) -> None:
    taps = adapters["eager"].run(r.request(directories[kind], kind, PLANS[plan]))
    assert taps.keys() == single[kind].keys()
    pads = PLANS[plan].left_pad or [0]
    errors = {tap: r.row_error(tap, taps[tap], single[kind][tap], pads) for tap in taps}
    assert max(errors.values()) <= 2e-5, max(errors, key=lambda tap: errors[tap])


def test_float64_is_float64_in_every_tap(
    adapters: dict[str, TransformersAdapter], directories: dict[str, Path], single: dict[str, dict[str, Array]]
) -> None:
    taps = adapters["eager"].run(r.request(directories["ple"], "ple", PLANS["padded-two"], "f64"))
    assert {value.dtype for value in taps.values()} == {np.dtype(np.float64)}
    assert max(r.row_error(tap, taps[tap], single["ple"][tap], [0, 10]) for tap in taps) <= 1e-12


@pytest.mark.parametrize("profile", DTYPES)
@pytest.mark.parametrize("kind", c.KINDS)
def test_a_layer_alone_is_the_layer_of_the_forward_run(
    kind: str,
    profile: str,
    adapters: dict[str, TransformersAdapter],
    directories: dict[str, Path],
) -> None:
    forward = adapters["eager"].run(r.request(directories[kind], kind, Plan(), profile))
    for request in r.layer_requests(directories[kind], kind, forward, profile):
        taps = adapters["eager"].run(request)
        assert set(taps) == set(request.want)
        assert {value.dtype for value in taps.values()} == {np.dtype(DTYPES[profile])}
        assert max(r.error(taps[tap], forward[tap]) for tap in taps) <= TOLERANCE[profile]


@pytest.mark.parametrize(
    ("attention", "plan"), [("eager", Plan()), ("sdpa", PLANS["padded-two"])], ids=["none", "padded"]
)
@pytest.mark.parametrize("kind", c.KINDS)
def test_agrees_with_mlx_lm(
    kind: str,
    attention: str,
    plan: Plan,
    adapters: dict[str, TransformersAdapter],
    directories: dict[str, Path],
    single: dict[str, dict[str, Array]],
) -> None:
    pytest.importorskip("mlx_lm")
    from conformance.adapters.mlx_lm.adapter import MlxLmAdapter

    request = r.request(directories[kind], kind, plan)
    mine, theirs = adapters[attention].run(request), MlxLmAdapter().run(request)
    assert set(mine) - set(theirs) == {tap for tap in mine if kind != "ple" and tap.endswith("residual_2")}
    pads = plan.left_pad or [0]
    errors = {tap: r.row_error(tap, theirs[tap], single[kind][tap], pads) for tap in theirs}
    errors |= {f"torch {tap}": r.row_error(tap, mine[tap], single[kind][tap], pads) for tap in mine}
    assert max(errors.values()) <= 2e-5, max(errors, key=lambda tap: errors[tap])


ASKED = [("eager", name) for name, question in QUESTIONS.items() if question.kind != "softcap"]
ASKED += [("sdpa", name) for name, question in QUESTIONS.items() if question.kind == "attention_core"]


@pytest.mark.parametrize("profile", DTYPES)
@pytest.mark.parametrize(("attention", "name"), ASKED)
def test_modules_answer_the_formula(
    name: str, profile: str, attention: str, adapters: dict[str, TransformersAdapter]
) -> None:
    question = QUESTIONS[name]
    if (profile, attention) == ("f64", "sdpa"):
        pytest.skip("f64 is not offered with sdpa: see test_skips_say_why")
    answers = adapters[attention].run(question_request(name, profile))
    assert answers.keys() == question.expected.keys()
    for tap, expected in question.expected.items():
        natural = {"inv_freq": np.float64 if profile == "f64" else np.float32, "donors": np.int32}
        assert answers[tap].dtype == natural.get(tap, DTYPES[profile])
        tolerance = max(TOLERANCE[profile], 1e-4 if name == "rope-far" and profile != "f64" else 0)
        assert r.error(answers[tap], expected) <= tolerance


def test_lifting_ends_with_the_answer(adapters: dict[str, TransformersAdapter]) -> None:
    for profile, dtype in (("f64", np.float64), ("f32", np.float32)):
        assert adapters["eager"].run(question_request("rms-norm", profile))["y"].dtype == dtype
        assert torch.zeros(1, dtype=torch.float64).float().dtype == torch.float32


def test_skips_say_why(adapters: dict[str, TransformersAdapter], directories: dict[str, Path], tmp_path: Path) -> None:
    forward = r.request(directories["dense"], "dense", Plan())
    for reason, request in {
        "f8 is not offered": replace(forward, profile="f8"),
        "no softcap": replace(forward, kind="softcap"),
        "no ple_index": replace(forward, kind="ple_index"),
    }.items():
        with pytest.raises(Skip, match=reason):
            adapters["eager"].run(request)
    with pytest.raises(Skip, match="no switch_glu layout"):
        adapters["eager"].run(r.request(c.write_split_experts(tmp_path / "moe"), "moe", Plan()))
    with pytest.raises(Skip, match="f64 is not offered with sdpa attention"):
        adapters["sdpa"].run(question_request("linear", "f64"))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", c.KINDS)
def test_the_generic_tree_reads_transformers_as_its_own_adapter_does(
    kind: str, attention: str, adapters: dict[str, TransformersAdapter], directories: dict[str, Path]
) -> None:
    adapter = adapters[attention]
    request = r.request(directories[kind], kind, Plan(), "f32")
    model = adapter._load(directories[kind], "float32")._model
    with torch.inference_mode(), torch_taps(model, model.config) as records:
        model(
            input_ids=torch.tensor(request.inputs["ids"], dtype=torch.int64),
            position_ids=torch.tensor(request.inputs["positions"], dtype=torch.int64),
            use_cache=False,
        )
    taps = records.joined()
    probs = {tap for tap in taps if tap.endswith(".probs")}
    assert bool(probs) == (attention == "eager")
    expected = adapter.run(replace(request, want=(*request.want, *probs)))
    for tap, value in taps.items():
        np.testing.assert_array_equal(value.numpy(), expected[tap], err_msg=tap)
    by_hand = {tap.rpartition(".")[2] for tap in expected.keys() - taps.keys()}
    assert by_hand == {"q_rope", "k_rope"} | {
        "ple": {"ple"},
        "dense": {"residual_2"},
        "moe": {"residual_2", "combine"},
    }.get(kind, {"residual_2"})
