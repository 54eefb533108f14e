"""The streaming pass against the oracle in memory, its stops and goings-on, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma4_contract import Fixtures
from gemma4_contract.full_size import FOLDER, at_full_size
from reference import full_size, inputs, weights
from reference.models import MODELS, Model
from reference.oracle import plans
from reference.oracle.arithmetic import BF16, F32, F64, Arithmetic
from reference.oracle.decoder import Decoder
from reference.streaming import matrix
from reference.streaming.arithmetic import streamed
from reference.streaming.forward import layer_by_layer, run
from reference.streaming.matrix import Remembered, RuleMatrix
from reference.streaming.stored_taps import TOP, StoredTap, StoredTapRecorder, evenly_spaced, stored_counts
from reference.streaming.weights import by_rule
from reference.taps import model_taps

ROWS = [0, 3, 8, 18]


def question(name: str) -> tuple[Model, Any, Any]:
    model = MODELS[name]
    ids = inputs.token_ids("streaming", 19, model.config.vocab_size)
    return model, ids, np.arange(19, dtype=np.int32)[None]


def quiet(done: int, total: int, what: str) -> None:
    pass


def kept_of(decoder: Decoder, ids: Any, progress: Any = quiet, state: Path | None = None) -> dict[str, StoredTap]:
    recorder = StoredTapRecorder(config=decoder.config, length=ids.shape[1], rows=ROWS)
    run(decoder, ids, recorder, progress, state)
    return recorder.taps


@pytest.mark.parametrize("dtype", [F64, F32, BF16], ids=lambda ar: ar.name)
def test_a_matrix_by_rule_is_the_rule_s(dtype: Arithmetic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "BLOCK_BYTES", 8 * 7 * 5)  # blocks of five rows
    whole = weights.matrix("m/x", (23, 7), 7)
    made = RuleMatrix("m/x", (23, 7), 7, dtype.dtype)
    assert [block.stop - block.start for block in made.blocks()] == [5, 5, 5, 5, 3]
    assert np.array_equal(np.concatenate([made.rows(block) for block in made.blocks()]), whole)
    assert made.rows(slice(2, 4)).dtype == dtype.dtype
    ids = np.array([[3, 22], [3, 0]])
    assert np.array_equal(made[ids], whole[ids])
    stack = RuleMatrix("m/x", (3, 4, 7), 7, dtype.dtype)
    assert np.array_equal(stack[2], weights.matrix("m/x", (3, 4, 7), 7)[2])


def test_term_by_term_is_term_by_term() -> None:
    """As far from a plain loop as fused multiplications may bring it, and not as far as BLAS is."""
    x = np.abs(inputs.values("term by term", (3, 20000))).astype(np.float32)

    class Positive(RuleMatrix):
        def rows(self, block: slice) -> Any:
            return np.abs(super().rows(block))

    table = Positive("m/x", (9, 20000), 7, F32.dtype)
    weight = table.rows(slice(0, 9))
    loop = np.zeros((3, 9), np.float32)
    for k in range(20000):
        loop += x[:, k : k + 1] * weight[:, k]
    plain, sequential = streamed(F32).linear(x, table), streamed(replace(F32, order="sequential")).linear(x, table)
    assert sequential.dtype == np.float32
    assert np.linalg.norm(sequential - loop) < 0.2 * np.linalg.norm(plain - loop)


def test_elements_behind_the_reach_of_32_bits() -> None:
    start = 262143 * 35 * 256
    table = RuleMatrix("e2b-full/table", (262144, 35 * 256), 256, F64.dtype)
    assert np.array_equal(table[262143], weights.q("e2b-full/table", start, start + 35 * 256) * 2.0**-10)
    assert np.array_equal(weights.q("x", 70_000, 200_000), weights.q("x", 0, 200_000)[70_000:])


@pytest.mark.parametrize("name", ["e2b-mini", "12b-mini", "26b-a4b-mini", "31b-mini"])
def test_a_streamed_pass_is_the_oracle_s(name: str) -> None:
    model, ids, positions = question(name)
    kept = kept_of(Decoder(model.config, by_rule(model, F64.dtype), streamed(F64)), ids)
    whole = plans.run(Decoder(model.config, weights.weights(model.id, model.config, mini=False)), ids, positions)
    axes = {tap.name: tap.axes for tap in model_taps(model.config)}
    assert list(kept) == list(stored_counts(model.config))
    for tap, one in kept.items():
        picked = np.ix_(*(one.indices.get(axis, range(size)) for axis, size in zip(axes[tap], one.whole, strict=True)))
        assert one.whole == whole[tap].shape
        assert np.allclose(one.values, whole[tap][picked], rtol=1e-12, atol=1e-12)
        seen = whole[tap][:, ROWS] if tap in ("model.norm", "logits") else whole[tap]
        assert one.rms == pytest.approx(np.sqrt(np.mean(seen**2)), rel=1e-12)
    top = np.argsort(whole["logits"][0, ROWS], axis=-1)[:, -TOP:]
    assert set(top.reshape(-1)) <= set(kept["logits"].indices["V"])


def test_a_pass_that_was_stopped_goes_on(tmp_path: Path) -> None:
    model, ids, _ = question("e2b-mini")
    state = tmp_path / "state"
    decoder = Decoder(model.config, by_rule(model, F64.dtype), streamed(F64))
    expected = kept_of(decoder, ids)
    seen: list[str] = []

    def stop(*told: Any) -> None:
        seen.append(told[-1])
        if told[-1] == "layer 7" and len(seen) < 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_of(decoder, ids, stop, state)
    assert state.exists()
    seen[:] = [""] * 10
    got = kept_of(decoder, ids, stop, state)
    assert seen[10:13] == ["embedding", "layer 7", "layer 8"]
    assert list(got) == list(expected)
    assert all(np.array_equal(got[name].values, expected[name].values) for name in got)
    seen.clear()
    kept_of(decoder, ids, lambda *told: seen.append(told[-1]), state)  # as after an interruption there
    assert seen == ["embedding", "logits", "done"]


def test_indices_are_spread_over_the_whole_axis() -> None:
    assert evenly_spaced(5, 64) == [0, 1, 2, 3, 4]
    assert evenly_spaced(1536, 128)[:2] == [6, 18]
    assert len(evenly_spaced(1000, 64)) == 64
    assert evenly_spaced(512, 32)[-1] > 500


def test_rows_and_ids_of_the_five_members() -> None:
    fixtures = Fixtures()
    for model in full_size.FULL_SIZE.values():
        window, rows = model.config.sliding_window, full_size.stored_rows(model)
        ids = full_size.token_ids(model, fixtures)
        assert ids.shape == (1, window + 77 + 4)
        assert rows == sorted(set(rows))
        assert {0, 63, window - 1, window, window + 76, window + 80} <= set(rows)
        assert ids.max() == 262143
        assert 262143 in ids[0, rows]
        assert ids[0, 0] == 2  # <bos>


@pytest.mark.slow
def test_the_stored_goldens_of_e2b_are_made_again() -> None:
    """Its embedding, PLE and first two layers: seconds, and the whole would take a minute."""
    fixtures = Fixtures()
    full = at_full_size(fixtures, Path())
    model = full_size.FULL_SIZE["e2b-full"]
    case = full.case("forward/e2b-full/text-l593/no-cache")
    ids, golden = full.inputs(case)["ids"], full.golden(case)
    assert np.array_equal(ids, full_size.token_ids(model, fixtures))

    def stop(*told: Any) -> None:
        if told[-1] == "layer 2":
            raise KeyboardInterrupt

    decoder = Decoder(model.config, by_rule(model, F64.dtype), streamed(F64))
    recorder = StoredTapRecorder(config=model.config, length=593, rows=full_size.stored_rows(model))
    with pytest.raises(KeyboardInterrupt):
        run(decoder, ids, recorder, stop)
    assert len(recorder.taps) == 12
    for name, one in recorder.taps.items():
        assert np.allclose(one.values, golden[name], rtol=1e-6, atol=1e-7), name


def test_all_that_is_stored_of_full_size_is_sound() -> None:
    full = at_full_size(Fixtures(), Path())
    assert full.faults() == []
    assert {case.model for case in full.cases()} <= set(full_size.models())
    assert sum(path.stat().st_size for path in (Fixtures().root / FOLDER).rglob("*") if path.is_file()) < 12e6


def test_the_first_tokens_are_cut_from_the_golden() -> None:
    full = at_full_size(Fixtures(), Path())
    whole, cut = (full.case(f"forward/e2b-full/text-l{length}/no-cache") for length in (593, 64))
    assert [tap.picks.whole for tap in full.taps(cut)][:1] == [[1, 64, 1536]]  # type: ignore[union-attr]
    for name, value in full.golden(cut).items():
        axis = next(tap.axes.index("L") for tap in full.taps(whole) if tap.name == name)
        assert value.shape[axis] == 3
        assert np.array_equal(value, np.take(full.golden(whole)[name], range(3), axis=axis))


def test_passes_that_take_turns_make_numbers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to passes alone; all matrices are made once, but for those that memory had no more room for."""
    model, ids, _ = question("e2b-mini")
    alone = [kept_of(Decoder(model.config, by_rule(model, ar.dtype), streamed(ar)), ids) for ar in (F64, F32)]
    made: list[tuple[str, int, int]] = []
    right = weights.q
    monkeypatch.setattr(weights, "q", lambda *asked: made.append(asked) or right(*asked))
    for room, most in ((1 << 30, 1), (1 << 10, 2)):
        q, recorders, turns = Remembered(room), [], []
        for ar in (F64, F32):
            decoder = Decoder(model.config, by_rule(model, ar.dtype, q), streamed(ar))
            recorders.append(StoredTapRecorder(config=model.config, length=19, rows=ROWS))
            turns.append(layer_by_layer(decoder, ids, recorders[-1], quiet))
        made.clear()  # vectors are made with the decoders
        assert len(list(zip(*turns, strict=True))) == model.config.num_hidden_layers
        assert max(made.count(asked) for asked in made) == most
        for recorder, expected in zip(recorders, alone, strict=True):
            assert all(np.array_equal(recorder.taps[name].values, one.values) for name, one in expected.items())
