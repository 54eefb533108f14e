"""The mlx-lm adapter on synthetic checkpoints: names, shapes, dtypes, plans, layers, modules, skips, and no residue."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from conformance.adapters.base import Skip
from gemma4_contract import Plan, tensors
from gemma4_contract.tensors import Array
from tests.support import adapter_checkpoints as c
from tests.support import adapter_requests as r
from tests.support.adapter_questions import QUESTIONS, question_request

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from conformance.adapters.mlx_arrays import PROFILE_DTYPES, to_mlx, to_numpy  # noqa: E402  (after importorskip)
from conformance.adapters.mlx_lm.adapter import MlxLmAdapter  # noqa: E402
from conformance.adapters.module_tree_mlx import CallProxy  # noqa: E402
from gemma4_contract.subgraph import SUBGRAPH_KINDS  # noqa: E402

DTYPES: dict[str, Any] = {"f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
TOLERANCE = {"f32": 5e-7, "bf16": 1e-2, "f16": 1e-3}
PLANS = {
    "one-shot": Plan(steps=[19]),
    "chunks": Plan(steps=[5, 5, 5, 4]),
    "two": Plan(steps=[11, 8]),
    "tokens": Plan(steps=[1] * 19),
    "decode": Plan(steps=[13, 1, 1, 1, 1, 1, 1]),
    "padded": Plan(steps=[19], left_pad=[0, 3]),
    "padded-chunks": Plan(steps=[5, 5, 5, 4], left_pad=[0, 10]),
    "padded-tokens": Plan(steps=[1] * 19, left_pad=[3, 0]),
}
ON_CPU = mx.default_device().type == mx.DeviceType.cpu


@pytest.fixture(scope="module")
def adapter() -> MlxLmAdapter:
    return MlxLmAdapter()


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("mlx-lm")
    return {kind: c.write_checkpoint(root / kind, kind) for kind in c.KINDS}


@pytest.fixture(scope="module")
def single(adapter: MlxLmAdapter, directories: dict[str, Path]) -> dict[str, dict[str, Array]]:
    """The f32 taps of every kind without a cache."""
    return {kind: adapter.run(r.request(directories[kind], kind, Plan())) for kind in c.KINDS}


def test_hello_names_the_installed_release(adapter: MlxLmAdapter) -> None:
    hello = adapter.hello()
    assert (hello.name, hello.family, hello.profiles) == ("mlx-lm", "mlx", ("f32", "bf16", "f16"))
    assert hello.version.split(".")[0].isdigit()
    assert {"forward", *SUBGRAPH_KINDS} | {q.kind for q in QUESTIONS.values()} == set(hello.kinds)


@pytest.mark.parametrize("kind", c.KINDS)
def test_offers_every_tap_with_its_name_and_shape(kind: str, single: dict[str, dict[str, Array]]) -> None:
    expected = c.tap_shapes(kind)
    if kind != "ple":  # mlx-lm multiplies it by layer_scalar at once, where no PLE block takes it
        expected = {tap: shape for tap, shape in expected.items() if not tap.endswith("residual_2")}
    assert {tap: value.shape for tap, value in single[kind].items()} == expected


def test_answers_only_what_is_wanted(adapter: MlxLmAdapter, directories: dict[str, Path]) -> None:
    want = ("model.layers.1.self_attn.q_rope", "model.layers.0.output", "self_attn.probs")
    assert set(adapter.run(r.request(directories["ple"], "ple", Plan(), want=want))) == set(want[:2])


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", c.KINDS)
def test_plans_agree(
    kind: str, plan: str, adapter: MlxLmAdapter, directories: dict[str, Path], single: dict[str, dict[str, Array]]
) -> None:
    taps = adapter.run(r.request(directories[kind], kind, PLANS[plan]))
    assert taps.keys() == single[kind].keys()
    pads = PLANS[plan].left_pad or [0]
    errors = {tap: r.row_error(tap, taps[tap], single[kind][tap], pads) for tap in taps}
    assert max(errors.values()) <= 2e-5, max(errors, key=lambda tap: errors[tap])


@pytest.mark.parametrize("kind", c.KINDS)
def test_a_layer_alone_is_the_layer_of_the_forward_run(
    kind: str, adapter: MlxLmAdapter, directories: dict[str, Path], single: dict[str, dict[str, Array]]
) -> None:
    for request in r.layer_requests(directories[kind], kind, single[kind]):
        taps = adapter.run(request)
        assert set(taps) == set(request.want) & set(single[kind])
        assert max(r.error(taps[tap], single[kind][tap]) for tap in taps) <= 1e-6


def test_attention_alone_is_the_attention_of_the_forward_run(
    adapter: MlxLmAdapter, directories: dict[str, Path], single: dict[str, dict[str, Array]]
) -> None:
    for layer, request in enumerate(r.layer_requests(directories["ple"], "ple", single["ple"])):
        inputs = {name: array for name, array in request.inputs.items() if name in ("k", "v", "positions")}
        inputs["x"] = single["ple"][f"model.layers.{layer}.input_layernorm"]
        want = tuple(tap for tap in request.want if ".self_attn." in tap)
        taps = adapter.run(replace(request, kind="attention", inputs=inputs, want=want))
        assert set(taps) == set(want)
        assert max(r.error(taps[tap], single["ple"][tap]) for tap in taps) <= 1e-6


@pytest.mark.parametrize("profile", ["bf16", "f16"])
@pytest.mark.parametrize("kind", ["ple", "dense"])
def test_low_precision_answers_in_its_own_dtype_and_near_f32(
    kind: str, profile: str, adapter: MlxLmAdapter, directories: dict[str, Path], single: dict[str, dict[str, Array]]
) -> None:
    taps = adapter.run(r.request(directories[kind], kind, PLANS["two"], profile))
    assert {value.dtype for value in taps.values()} == {np.dtype(DTYPES[profile])}
    assert 1e-5 < r.error(taps["model.norm"], single[kind]["model.norm"]) < 0.1


@pytest.mark.parametrize("profile", DTYPES)
@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != "inv-freq-sliding"])
def test_modules_answer_the_formula(name: str, profile: str, adapter: MlxLmAdapter) -> None:
    question = QUESTIONS[name]
    if question.kind == "experts" and profile != "f32" and ON_CPU:
        pytest.skip("mx.gather_mm is float32 only on the CPU")
    answers = adapter.run(question_request(name, profile))
    assert answers.keys() == question.expected.keys()
    for tap, expected in question.expected.items():
        natural = {"inv_freq": np.float32, "donors": np.int32}
        assert answers[tap].dtype == natural.get(tap, DTYPES[profile])
        tolerance = max(TOLERANCE[profile], 1e-4 if name == "rope-far" else 0)
        assert r.error(answers[tap], expected) <= tolerance


def test_skips_say_why(adapter: MlxLmAdapter, directories: dict[str, Path]) -> None:
    forward = r.request(directories["dense"], "dense", Plan())
    shifted = {**forward.inputs, "positions": forward.inputs["positions"] + 1}
    questions = {
        "f64": replace(forward, profile="f64"),
        "ple_index": replace(forward, kind="ple_index"),
        "positions": replace(forward, inputs=shifted),
        "without a cache": r.request(directories["dense"], "dense", Plan(left_pad=[0, 3])),
        "keeps no frequencies": question_request("inv-freq-sliding", "f32"),
    }
    if ON_CPU:
        questions["mx.gather_mm"] = r.request(directories["moe"], "moe", Plan(), "bf16")
        questions["float32 only"] = question_request("experts", "f16")
    for reason, request in questions.items():
        with pytest.raises(Skip, match=reason):
            adapter.run(request)


def test_steps_that_do_not_add_up_are_an_error(adapter: MlxLmAdapter, directories: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="add up to 19"):
        adapter.run(r.request(directories["dense"], "dense", Plan(steps=[5, 5])))


def _recorders(module: Any) -> list[str]:
    """Paths of everything in a model that still stands in for something."""
    found = []
    for name, value in [*module.items(), *vars(module).items()]:
        for index, entry in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(entry, CallProxy):
                found.append(f"{name}[{index}]")
                entry = entry._inner
            if hasattr(entry, "children"):
                found += [f"{name}[{index}].{path}" for path in _recorders(entry)]
    return found


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_wrapped(
    fails: bool, adapter: MlxLmAdapter, directories: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = r.request(directories["ple"], "ple", Plan(steps=[19]))
    model = adapter._load(directories["ple"], mx.float32)
    during: list[str] = []
    last = model.model.layers[-1]
    per_layer_projection = last.per_layer_projection

    def looking(x: Any) -> Any:
        during.extend(_recorders(model))
        if fails:
            raise RuntimeError("in the middle of a run")
        return per_layer_projection(x)

    monkeypatch.setitem(last, "per_layer_projection", looking)
    if fails:
        with pytest.raises(RuntimeError, match="in the middle"):
            adapter.run(request)
    else:
        adapter.run(request)
    assert len(during) > 80
    assert _recorders(model) == []


def test_a_surplus_tensor_is_refused(adapter: MlxLmAdapter, tmp_path: Path) -> None:
    directory = c.write_checkpoint(tmp_path / "dense", "dense")
    surplus = {"model.layers.0.self_attn.q_bias": np.ones(3, np.float32)}
    tensors.write(directory / "model.safetensors", c.weights("dense") | surplus)
    with pytest.raises(ValueError, match="q_bias"):
        adapter.run(r.request(directory, "dense", Plan()))


@pytest.mark.parametrize("profile", DTYPES)
def test_arrays_cross_to_mlx_and_back_bit_for_bit(profile: str) -> None:
    dtype = np.dtype(DTYPES[profile])
    bits = np.arange(2**16, dtype=np.uint16)
    array = bits.view(dtype) if dtype.itemsize == 2 else (bits / 7).astype(dtype)
    with np.errstate(invalid="ignore"):  # signalling NaN
        array = array[np.isfinite(array)][:63000].reshape(-1, 2).T  # not contiguous
    back = to_numpy(to_mlx(array, PROFILE_DTYPES[profile]))
    assert back.dtype == dtype
    assert back.tobytes() == array.tobytes()


def test_an_untied_head_gives_the_raw_logits(adapter: MlxLmAdapter, tmp_path: Path) -> None:
    directory = c.write_checkpoint(tmp_path / "dense", "dense")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    capped = config | {"tie_word_embeddings": False, "final_logit_softcapping": 5.0}
    (directory / "config.json").write_text(json.dumps(capped), encoding="utf-8")
    head = c.normal("head", c.V, config["hidden_size"])
    tensors.write(directory / "model.safetensors", c.weights("dense") | {"lm_head.weight": head})
    taps = adapter.run(r.request(directory, "dense", Plan()))
    raw = taps["model.norm"].astype(np.float64) @ head.T
    assert r.error(taps["logits.raw"], raw) <= 1e-6
    assert r.error(taps["logits"], 5 * np.tanh(raw / 5)) <= 1e-5


def test_split_experts_are_mlx_lm_s_own_layout(
    adapter: MlxLmAdapter, tmp_path: Path, single: dict[str, dict[str, Array]]
) -> None:
    directory = c.write_split_experts(tmp_path / "moe")
    taps = adapter.run(r.request(directory, "moe", Plan()))
    assert taps.keys() == single["moe"].keys()
    assert max(r.error(taps[tap], single["moe"][tap]) for tap in taps) == 0
