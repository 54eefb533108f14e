"""A prompt that was begun before gives what it gives from the start, past the window too; files are whole."""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_impl import Decoder, MlxImplError, parse_config
from mlx_impl.checkpoint.load import load as load_decoder
from mlx_impl.fast.decoder import FusedDecoder
from mlx_impl.generation import prompt_cache
from mlx_impl.generation.generate import prefill, stream
from mlx_impl.generation.prompt_cache import Mark, fingerprint, load, mark, reuse, save
from tests.support import gemma4_small as g
from tests.support import generated
from tests.support.generated import mini

COUNT = 20


PATHS = {
    "plain": mini,
    "fused": lru_cache(maxsize=2)(lambda name: FusedDecoder(mini(name))),
}  # to compile it takes long
both_paths = pytest.mark.parametrize("path", [pytest.param("plain", marks=pytest.mark.slow), "fused"])


def greedy(decoder: Any, ids: list[int], caches: Any = None, count: int = COUNT) -> list[int]:
    return [token.id for token in stream(decoder, ids, caches=caches, max_tokens=count)]


def fed(decoder: Any, ids: list[int]) -> Any:
    """Caches that hold ids."""
    caches = decoder.make_caches()
    prefill(decoder, ids, caches, step=5)
    return caches


def columns(caches: Any) -> list[list[int]]:
    """The positions that each cache holds."""
    return [cache.kept.positions[0].tolist() if cache.kept else [] for cache in caches]


# (tokens in the caches, of them in common, tokens reused). A window of 8 keeps 7 columns: 7 tokens drop nothing.
REUSES = [
    (5, 5, 5),
    (5, 3, 3),
    (7, 7, 7),
    (7, 1, 1),
    (5, 0, 0),
    (8, 7, 0),
    (8, 8, 8),
    (20, 20, 20),
    (20, 19, 0),
    (20, 9, 0),
    (20, 2, 0),
    (20, 0, 0),
]


@both_paths
@pytest.mark.parametrize("name", ["e2b-mini", "31b-mini"])
@pytest.mark.parametrize(("held", "common", "kept"), REUSES)
def test_reuse_never_changes_greedy_output(name: str, held: int, common: int, kept: int, path: str) -> None:
    decoder = PATHS[path](name)
    old = generated.prompt(name, held, seed=1)
    # Of some continuations that differ at once the first that decides clearly, so that rounding has no say.
    tails = [[token, *generated.prompt(name, 5, seed=2)] for token in range(3, 40) if token not in old[common:]]
    new = next(ids for ids in (old[:common] + tail for tail in tails) if decides(path, name, ids))
    caches = fed(decoder, old)
    before = [[mx.array(a) for a in cache.arrays] for cache in caches]
    got, count = reuse(caches, old, new)
    assert count == kept
    assert {cache.offset for cache in got} == {kept}
    assert columns(got) == columns(fed(decoder, new[:kept]) if kept else decoder.make_caches())
    assert greedy(decoder, new[kept:], got) == from_the_start(path, name, tuple(new))
    # The given ones are as they were, and still go on.
    assert all(
        mx.array_equal(a, b) for c, d in zip(caches, before, strict=True) for a, b in zip(c.arrays, d, strict=True)
    )
    assert {cache.offset for cache in caches} == {held}


@lru_cache(maxsize=64)
def from_the_start(path: str, name: str, ids: tuple[int, ...]) -> list[int]:
    """What follows ids, with new caches."""
    return greedy(PATHS[path](name), list(ids))


def decides(path: str, name: str, ids: list[int]) -> bool:
    """Whether the tokens that follow lead by more than rounding can move them."""
    decoder, everything = PATHS[path](name), ids + from_the_start(path, name, tuple(ids))
    logits = np.sort(np.array(decoder(mx.array([everything]))[0, len(ids) - 1 : -1]), axis=-1)
    return bool((logits[:, -1] - logits[:, -2]).min() > 0.005)


def test_a_cut_that_ignores_the_window_would_be_seen() -> None:
    """Or the test above could not see it: what is left of a window, one token back, lacks a column."""
    decoder, old = mini("31b-mini"), generated.prompt("31b-mini", 20, seed=1)
    caches = fed(decoder, old)
    short = [prompt_cache._cut_copy(cache, prompt_cache._kept(cache), cache.offset - 18, 18) for cache in caches]
    assert columns(short)[0] == list(range(13, 18))  # of 11 to 17
    new = [*old[:18], *generated.prompt("31b-mini", 5, seed=2)]
    assert greedy(decoder, new[18:], short) != greedy(decoder, new)


@both_paths
@pytest.mark.parametrize("name", ["e2b-mini", "31b-mini"])
@pytest.mark.parametrize("at", [4, 12])
def test_a_mark_is_gone_back_to(name: str, at: int, path: str) -> None:
    decoder = PATHS[path](name)
    old = generated.prompt(name, 20, seed=3)
    caches = decoder.make_caches()
    prefill(decoder, old[:at], caches, step=5)
    place = mark(caches, old[:at])
    prefill(decoder, old[at:], caches, step=5)
    new = old[: at + 1] + generated.prompt(name, 6, seed=4)
    assert decides(path, name, new)
    got, count = reuse(caches, old, new, [place])
    assert count == at
    assert columns(got) == columns(fed(decoder, old[:at]))
    assert greedy(decoder, new[at:], got) == from_the_start(path, name, tuple(new))
    assert {cache.offset for cache in caches} == {20}
    # It can be gone back to again, and from there to an earlier prefix where nothing was dropped.
    again, count = reuse(caches, old, new, [place])
    assert count == at
    assert greedy(decoder, new[at:], again) == from_the_start(path, name, tuple(new))


def test_which_mark() -> None:
    decoder, ids = mini("trap-gqa"), generated.prompt("trap-gqa", 30, seed=0)
    caches = decoder.make_caches()
    marks = []
    for at in (9, 15, 21):
        prefill(decoder, ids[caches[0].offset : at], caches, step=50)
        marks.append(mark(caches, ids[:at]))
    prefill(decoder, ids[21:], caches, step=50)
    for common, kept in ((8, 0), (9, 9), (14, 9), (15, 15), (25, 21), (30, 30)):
        new = [*ids[:common], (ids[common] if common < 30 else 0) + 1, 5]
        assert reuse(caches, ids, new, marks)[1] == kept
    assert reuse(caches, ids, ids, marks)[1] == 21  # one token must be left to be fed
    other = Mark(fed=(*ids[:8], 0), windows=marks[0].windows)
    assert reuse(caches, ids, ids[:12], [other])[1] == 0  # a mark of another conversation


def test_the_last_token_is_left_to_be_fed() -> None:
    decoder, ids = mini("trap-gqa"), [3, 4, 5, 6]
    assert reuse(fed(decoder, ids), ids, ids)[1] == 3
    assert reuse(fed(decoder, ids), ids, ids[:2])[1] == 1
    assert reuse(decoder.make_caches(), [], ids)[1] == 0


def test_ids_that_caches_do_not_hold_are_refused() -> None:
    decoder = mini("trap-gqa")
    caches = fed(decoder, [3, 4, 5])
    for call in (lambda: reuse(caches, [3, 4], [3, 4, 5, 6]), lambda: mark(caches, [3]), lambda: mark([], [])):
        with pytest.raises(MlxImplError, match=r"fed: got \d ids, and caches that hold .*; expected exactly what"):
            call()
    with pytest.raises(MlxImplError, match="caches: got empty caches"):
        mark(decoder.make_caches(), [])


@pytest.mark.parametrize("name", ["e2b-mini", "31b-mini"])
@pytest.mark.parametrize("length", [1, 5, 7, 8, 21])
def test_a_file_gives_back_what_was_saved(name: str, length: int, tmp_path: Path) -> None:
    decoder, ids = mini(name), generated.prompt(name, length + 3, seed=5)
    caches = fed(decoder, ids[:length])
    save(tmp_path / "a cache", decoder, caches, ids[:length])
    assert os.listdir(tmp_path) == ["a cache"]
    got, held = load(tmp_path / "a cache", decoder)
    assert held == ids[:length]
    assert [type(c) for c in got] == [type(c) for c in caches]
    assert columns(got) == columns(caches)
    for one, other in zip(got, caches, strict=True):
        assert one.offset == other.offset
        assert all(mx.array_equal(a, b) for a, b in zip(one.arrays, other.arrays, strict=True))
    assert greedy(decoder, ids[length:], got) == greedy(decoder, ids[length:], caches)


@pytest.mark.parametrize("length", [1, 7, 8, 21])
def test_both_paths_read_each_other_s_files(length: int, tmp_path: Path) -> None:
    ids = generated.prompt("e2b-mini", length + 3, seed=5)
    paths = [PATHS["plain"]("e2b-mini"), PATHS["fused"]("e2b-mini")]
    for writer, reader in (paths, paths[::-1]):
        save(tmp_path / "cache", writer, fed(writer, ids[:length]), ids[:length])
        got, held = load(tmp_path / "cache", reader)
        assert held == ids[:length]
        assert [type(c) for c in got] == [type(c) for c in reader.make_caches()]
        assert columns(got) == columns(fed(reader, held))
        assert greedy(reader, ids[length:], got) == from_the_start("plain", "e2b-mini", tuple(ids))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_files_in_low_precision(dtype: str, tmp_path: Path) -> None:
    decoder, ids = load_decoder(generated.MODELS / "trap-gqa", dtype), [5, 6, 7, 8, 9, 10, 11, 12, 13]
    caches = fed(decoder, ids)
    save(tmp_path / "cache", decoder, caches, ids)
    got, _ = load(tmp_path / "cache", decoder)
    assert got[0].arrays[0].dtype == g.DTYPES[dtype]
    assert mx.array_equal(got[0].arrays[0], caches[0].arrays[0])


def test_a_window_of_one_keeps_no_column(tmp_path: Path) -> None:
    decoder = Decoder(parse_config(g.SMALL["31b"] | {"sliding_window": 1}))
    decoder.load_weights([(name, mx.array(value)) for name, value in g.weights(decoder).items()], strict=True)
    caches = fed(decoder, [3, 4, 5])
    save(tmp_path / "cache", decoder, caches, [3, 4, 5])
    got, _ = load(tmp_path / "cache", decoder)
    assert columns(got) == [[], [], [0, 1, 2], [], [0, 1, 2]]
    assert greedy(decoder, [6], got) == greedy(decoder, [3, 4, 5, 6])
    fused = FusedDecoder(decoder)
    got, _ = load(tmp_path / "cache", fused)
    assert columns(got) == [[], [], [0, 1, 2], [], [0, 1, 2]]
    assert greedy(fused, [6], got) == greedy(decoder, [3, 4, 5, 6])


def test_another_model_is_noticed() -> None:
    decoder = g.small("31b")
    seen = {fingerprint(decoder), fingerprint(g.small("31b", "bfloat16")), fingerprint(g.small("e2b"))}
    other = g.small("31b")
    other.model.layers[2].mlp.up_proj.weight = other.model.layers[2].mlp.up_proj.weight + 0.001
    seen.add(fingerprint(other))
    window = Decoder(parse_config(g.SMALL["31b"] | {"sliding_window": 9}))
    window.load_weights(list(decoder.tensors().items()))
    seen.add(fingerprint(window))
    assert len(seen) == 5
    assert fingerprint(g.small("31b")) in seen


def saved(folder: Path) -> tuple[Path, Decoder, dict[str, mx.array], dict[str, str]]:
    """A good file, its model, its tensors and its metadata."""
    decoder, ids, path = mini("trap-gqa"), generated.prompt("trap-gqa", 12, seed=0), folder / "cache.safetensors"
    save(path, decoder, fed(decoder, ids), ids)
    arrays, metadata = mx.load(str(path), return_metadata=True)  # type: ignore[misc]
    return path, decoder, arrays, metadata


def refusal(path: Path, decoder: Decoder) -> str:
    with pytest.raises(MlxImplError) as caught:
        load(path, decoder)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path, decoder, _, _ = saved(tmp_path)
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert refusal(path, decoder).startswith("got a file that is broken or cut off; expected a complete")
    path.write_bytes(whole + b"more")
    assert "broken" in refusal(path, decoder)
    path.write_bytes(b"no safetensors at all" * 100)
    assert "broken" in refusal(path, decoder)
    assert "got no such file" in refusal(tmp_path / "nothing", decoder)
    assert "got no such file" in refusal(tmp_path, decoder)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    path, decoder, arrays, metadata = saved(tmp_path)

    def said(arrays: dict[str, mx.array], metadata: dict[str, str]) -> str:
        mx.save_safetensors(str(path), arrays, metadata)
        return refusal(path, decoder)

    assert said(arrays, metadata | {"version": "2"}).startswith("got format 'mlx_impl prompt cache', version '2'")
    assert said(arrays, {}).startswith("got format None, version None; expected 'mlx_impl prompt cache', version '1'")
    assert said(arrays, metadata | {"model": "0"}).startswith("got the cache of another model")
    assert said(g.without(arrays, "ids"), metadata).startswith("got ids of shape (0,)")
    assert said(arrays | {"ids": arrays["ids"][:-1]}, metadata).startswith("got 1.keys (1,")
    missing = said(g.without(arrays, "0.values"), metadata)
    assert re.match(r"got 0\.values missing; expected \(1, \d+, 7, \d+\); delete it", missing)
    assert said(arrays | {"0.more": arrays["ids"]}, metadata).startswith("got 0.more (12,); expected no such tensor")
    mx.save_safetensors(str(path), arrays, metadata)
    assert load(path, decoder)[1] == arrays["ids"].tolist()
    assert refusal(path, mini("e2b-mini")).startswith("got the cache of another model")


def test_saving_never_leaves_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decoder, _, _ = saved(tmp_path)
    before = path.read_bytes()

    def cut_off(error: BaseException) -> Any:
        def write(file: str, *_: Any) -> None:
            Path(file).write_bytes(b"half")
            raise error

        return write

    for error in (KeyboardInterrupt(), MemoryError(), RuntimeError("disk full"), OSError(28, "No space left")):
        monkeypatch.setattr(mx, "save_safetensors", cut_off(error))
        shown = MlxImplError if isinstance(error, RuntimeError | OSError) else type(error)
        with pytest.raises(shown) as caught:
            save(path, decoder, fed(decoder, [5, 6]), [5, 6])
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == [path.name]


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    decoder = mini("trap-gqa")
    caches = fed(decoder, [5, 6, 7])

    def said(caches: Any, ids: list[int], path: Path = tmp_path / "cache") -> str:
        with pytest.raises(MlxImplError) as caught:
            save(path, decoder, caches, ids)
        return str(caught.value)

    assert said(caches, [5, 6]).startswith("fed: got 2 ids, and caches that hold [3]")
    assert said(decoder.make_caches(), []).startswith("caches: got empty caches")
    assert "got No such file or directory; expected a place to write to" in said(
        caches, [5, 6, 7], tmp_path / "no" / "c"
    )
    two = decoder.make_caches()
    decoder(mx.array([[5, 6], [7, 8]]), caches=two)
    assert said(two, [5, 6]).startswith("caches: got caches of a batch, with pads or with other positions")
    shifted = decoder.make_caches()
    decoder(mx.array([[5, 6]]), positions=mx.array([[3, 4]]), caches=shifted)
    assert "other positions" in said(shifted, [5, 6])
    assert os.listdir(tmp_path) == []
