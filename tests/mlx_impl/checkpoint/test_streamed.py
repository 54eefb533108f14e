"""Streamed layers: every result to the bit, and no more than a layer in memory."""

import gc
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from gemma4_contract.recording import Pieces
from mlx_impl import MlxImplError
from mlx_impl.checkpoint.load import held_bytes, load
from mlx_impl.checkpoint.streamed import StreamedLayer
from mlx_impl.fast.decoder import FusedDecoder
from tests.support import gemma4_small as g
from tests.support import quantized_checkpoints as q

MIB = 2**20
IDS = mx.array(g.ids(2, 21) % 96)


def written(folder: Path, config: dict[str, Any], layout: str) -> Path:
    """A checkpoint of plain weights, of plain ones with experts apart, or of quantised ones, which lie so."""
    if layout == "quantised":
        q.write(folder, config)
        return folder
    (folder / "config.json").write_text(json.dumps(config))
    weights = q.split(q.plain(config)) if layout == "apart" else q.plain(config)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


def seen(decoder: Any, steps: list[int] | None) -> dict[str, list[mx.array]]:
    """All taps of the calls of a plan, logits last."""
    caches, start = None if steps is None else decoder.make_caches(), 0
    pieces: Pieces[mx.array] = Pieces()
    for step in steps or [IDS.shape[1]]:
        decoder(IDS[:, start : start + step], caches=caches, tap=pieces)
        start += step
    return pieces.taps


@pytest.mark.parametrize("steps", [None, [9, 10, 1, 1]])
@pytest.mark.parametrize("layout", ["plain", "apart", "quantised"])
@pytest.mark.parametrize("config", [q.E2B, q.MIXTURE], ids=["e2b", "mixture"])
def test_every_tap_is_the_same_to_the_bit(
    config: dict[str, Any], layout: str, steps: list[int] | None, tmp_path: Path
) -> None:
    folder = written(tmp_path, config, layout)
    expected, got = seen(load(folder), steps), seen(load(folder, layers="streamed", ple="mapped"), steps)
    assert list(got) == list(expected)
    assert "model.layers.1.output" in got
    for name, values in expected.items():
        assert all(mx.array_equal(*pair) for pair in zip(got[name], values, strict=True)), name


@pytest.mark.parametrize("dtype", g.DTYPES)
def test_logits_without_a_tap(dtype: str, tmp_path: Path) -> None:
    folder = written(tmp_path, q.E2B, "plain")
    streamed, resident = load(folder, dtype, layers="streamed"), load(folder, dtype)
    for _ in range(2):  # what a pass let go the next one reads again
        assert mx.array_equal(streamed(IDS), resident(IDS))
    assert mx.array_equal(streamed(IDS, last_only=True), resident(IDS, last_only=True))


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Sixteen layers of 2 MiB each in bfloat16, and little else."""
    config = q.MIXTURE | {
        "enable_moe_block": False,
        "intermediate_size": 2560,
        "layer_types": [q.S, q.F] * 8,
        "num_hidden_layers": 16,
    }
    return written(tmp_path, config, "plain")


def test_one_layer_at_a_time_is_in_memory(deep: Path) -> None:
    gc.collect()  # what earlier tests left must not be let go between two readings
    before = mx.get_active_memory()
    decoder = load(deep, "bfloat16", layers="streamed")
    assert mx.get_active_memory() - before < MIB
    mx.reset_peak_memory()
    mx.eval(decoder(IDS))
    assert 2 * MIB < mx.get_peak_memory() - before < 10 * MIB
    taps = seen(decoder, [10, 11])  # those that are kept keep no weights that they were computed with
    kept = sum(value.nbytes for values in taps.values() for value in values)
    assert kept <= mx.get_active_memory() - before < kept + 4 * MIB  # a view holds more than its own
    del taps
    resident = load(deep, "bfloat16")
    assert mx.get_active_memory() - before > 32 * MIB
    del resident


@pytest.mark.parametrize("layout", ["plain", "apart", "quantised"])
@pytest.mark.parametrize("config", [q.E2B, q.MIXTURE], ids=["e2b", "mixture"])
@pytest.mark.parametrize("dtype", g.DTYPES)
def test_what_a_whole_decoder_takes_is_known_before(
    dtype: str, config: dict[str, Any], layout: str, tmp_path: Path
) -> None:
    folder = written(tmp_path, config, layout)
    assert held_bytes(folder, dtype) == sum(value.nbytes for value in load(folder, dtype).tensors().values())


def test_a_file_that_went_away_is_no_wrong_answer(deep: Path) -> None:
    decoder = load(deep, layers="streamed")
    (deep / "model.safetensors").unlink()
    with pytest.raises(MlxImplError, match=r"model\.safetensors"):
        decoder(IDS)


def test_layers_that_are_nowhere_join_no_matrices(deep: Path) -> None:
    decoder = load(deep, layers="streamed")
    assert all(isinstance(layer, StreamedLayer) for layer in decoder.model.layers)
    with pytest.raises(MlxImplError, match="got streamed layers; expected layers in memory"):
        FusedDecoder(decoder)
