"""transformers layer by layer, its matrices made or read as they are used, against the oracle and its whole pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma4_contract import Fixtures  # noqa: E402
from gemma4_contract.checkpoint import text_part  # noqa: E402
from reference import inputs, weights  # noqa: E402  (after importorskip)
from reference.export.agreement import worst_difference  # noqa: E402
from reference.models import MODELS  # noqa: E402
from reference.oracle.arithmetic import F64, PROFILES  # noqa: E402
from reference.oracle.decoder import Decoder  # noqa: E402
from reference.streaming import forward, matrix  # noqa: E402
from reference.streaming.arithmetic import streamed  # noqa: E402
from reference.streaming.matrix import RuleMatrix  # noqa: E402
from reference.streaming.source import Source, from_checkpoint, rule  # noqa: E402
from reference.streaming.stored_taps import StoredTapRecorder, stored_counts  # noqa: E402
from reference.transformers_model import TransformersModel, streaming  # noqa: E402
from reference.transformers_model import rule as torch_rule  # noqa: E402

ROWS = [0, 3, 8, 18]
MEMBERS = ["e2b-mini", "12b-mini", "26b-a4b-mini", "31b-mini"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a matrix takes several."""
    monkeypatch.setattr(matrix, "BLOCK_BYTES", 1 << 14)


def recorder_of(source: Source) -> StoredTapRecorder:
    return StoredTapRecorder(config=source.config, length=19, rows=ROWS)


def by_transformers(source: Source, profile: Any = "f64", told: Any = None) -> StoredTapRecorder:
    dtypes: Any = {"f64": "float64", "f32": "float32", "bf16": "bfloat16"}
    recorder = recorder_of(source)
    streaming.run(
        text_part(source.config_json),
        source.weights(PROFILES[profile].dtype),
        inputs.token_ids("streaming", 19, source.config.vocab_size),
        ROWS,
        dtype=dtypes[profile],
        wanted=stored_counts(source.config),
        take=recorder,
        progress=told or (lambda *_: None),
    )
    return recorder


def by_oracle(source: Source) -> StoredTapRecorder:
    recorder, ids = recorder_of(source), inputs.token_ids("streaming", 19, source.config.vocab_size)
    forward.run(Decoder(source.config, source.weights(F64.dtype), streamed(F64)), ids, recorder, lambda *_: None)
    return recorder


def values(recorder: StoredTapRecorder) -> dict[str, Any]:
    return {name: one.values for name, one in recorder.taps.items()}


def assert_agreed(source: Source) -> None:
    got, expected = by_transformers(source), by_oracle(source)
    assert got.taps.keys() == expected.taps.keys()
    figure, tap = worst_difference(values(got), values(expected))
    assert figure <= 1e-12, tap
    for name, one in expected.taps.items():
        assert np.array_equal(got.taps[name].chosen, one.chosen)  # type: ignore[arg-type]  # None where none are chosen


@pytest.mark.parametrize("name", MEMBERS)
def test_the_two_derivations_agree(name: str) -> None:
    assert_agreed(rule(MODELS[name]))


@pytest.mark.parametrize("name", ["e2b-mini", "layout-split-experts", "layout-towers", "layout-sharded"])
def test_they_agree_on_a_checkpoint(name: str) -> None:
    assert_agreed(from_checkpoint(Fixtures().model_dir(name)))


@pytest.mark.parametrize("profile", ["f32", "bf16"])
@pytest.mark.parametrize("name", ["e2b-mini", "31b-mini"])
def test_it_is_transformers_own_pass(name: str, profile: Any) -> None:
    """To the bit but for the order in which products of blocks are summed: within a few ulps of the whole model's."""
    source = rule(MODELS[name])
    config: Any = source.config
    dtype: Any = {"f32": "float32", "bf16": "bfloat16"}[profile]
    whole = TransformersModel(
        text_part(source.config_json), weights.weights(name, config, mini=False), dtype=dtype, attention="eager"
    )
    ids = inputs.token_ids("streaming", 19, config.vocab_size)
    taps = whole.run(ids, positions=np.arange(19)[None], steps=None, left_pad=None)
    recorder = by_transformers(source, profile)
    for tap in ("model.embed_tokens", "model.layers.2.output"):
        expected = taps[tap][:, ROWS][..., recorder.taps[tap].indices["D"]]
        assert recorder.taps[tap].values.dtype == expected.dtype
        figure, _ = worst_difference({tap: recorder.taps[tap].values}, {tap: expected})
        assert figure <= (1e-6 if profile == "f32" else 1e-2)


def test_no_layer_stays_in_memory() -> None:
    """A layer's matrices are made when it runs, one layer after the other."""
    made: list[str] = []
    seen: list[Any] = []
    filled: list[int] = []
    source = rule(MODELS["e2b-mini"])

    def count(layer: Any) -> None:
        seen.append(layer)
        filled.append(sum(any(not tensor.is_meta for tensor in one.parameters()) for one in seen))

    with pytest.MonkeyPatch.context() as patch:
        right = RuleMatrix.rows
        patch.setattr(streaming, "refuse_empty", count)
        patch.setattr(RuleMatrix, "rows", lambda matrix, block: made.append(matrix.name) or right(matrix, block))
        told: list[str] = []
        by_transformers(source, told=lambda *what: told.append(what[-1]))
    assert filled == [1] * source.config.num_hidden_layers
    layers = [int(name.split(".")[2]) for name in made if ".layers." in name]
    assert layers == sorted(layers)
    assert set(layers) == set(range(source.config.num_hidden_layers))
    assert made[-1].endswith("embed_tokens.weight")  # the head
    assert told == [f"layer {i}" for i in range(source.config.num_hidden_layers)] + ["logits", "done"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_torch_follows_the_rule(dtype: Any) -> None:
    """Behind the reach of 32 bits too."""
    table = RuleMatrix("e2b-full/table", (262144, 35 * 256), 256, F64.dtype)
    for block in (slice(0, 2), slice(262142, 262144)):
        got = torch_rule.rows(table, block, dtype, torch.device("cpu"))
        assert got.dtype == dtype
        assert np.array_equal(got.double().numpy(), table.rows(block))


@pytest.mark.parametrize(("device", "by_torch"), [("cpu", False), ("meta", True)])
def test_torch_makes_them_where_numpy_is_not_quicker(device: str, by_torch: bool) -> None:
    table = RuleMatrix("e2b-full/table", (64, 48), 48, F64.dtype)
    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_rule, "rows", lambda _, block, *rest: made.append((block, *rest)))
        blocks = list(streaming._blocks(table, torch.float32, torch.device(device)))
    if by_torch:
        assert made == [(block, torch.float32, torch.device(device)) for block in table.blocks()]
    else:
        assert made == []
        assert torch.cat(blocks).tolist() == table.rows(slice(0, 64)).tolist()


def test_an_unsuitable_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="model_type: got 'llama'"):
        streaming.run(
            {"model_type": "llama"}, {}, np.zeros((1, 1)), [0], dtype="float64", wanted=(), take=print, progress=print
        )
