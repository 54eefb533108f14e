"""Generation gives what transformers generates, however the prompt is fed, and leaves the caches fit to go on."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gemma4_contract.recording import Recording
from mlx_impl import Decoder, MlxImplError
from mlx_impl.generation.generate import Generated, stream
from mlx_impl.generation.sampling import Sampling
from tests.support import gemma4_small as g
from tests.support import generated
from tests.support.generated import Scripted, mini

# (length of the prompt, seed) of prompts that decide clearly: rounding moves these logits by some 1e-5.
PROMPTS = {
    "e2b-mini": ((3, 3), (19, 4)),
    "31b-mini": ((3, 6), (19, 2)),
    "26b-a4b-mini": ((3, 1), (19, 4)),
    "trap-gqa": ((3, 1), (19, 0)),
}
CASES = [(name, *prompt) for name, prompts in PROMPTS.items() for prompt in prompts]
MARGIN = 0.03
COUNT = 28  # after a prompt of 3, more than three windows of 8


def ids_of(tokens: list[Generated]) -> list[int]:
    return [token.id for token in tokens]


def run(decoder: Any, ids: list[int], **options: Any) -> list[Generated]:
    """All tokens of one stream."""
    return list(stream(decoder, ids, **options))


@pytest.mark.parametrize(("name", "length", "seed"), CASES)
@pytest.mark.parametrize("prefill_step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (512, 1))])
def test_greedy_equals_transformers(name: str, length: int, seed: int, prefill_step: int) -> None:
    pytest.importorskip("transformers")
    prompt = generated.prompt(name, length, seed)
    want, logprobs, margin = generated.greedy(name, tuple(prompt), COUNT)
    assert margin > MARGIN  # or rounding decides
    got = run(mini(name), prompt, max_tokens=COUNT, prefill_step=prefill_step)
    assert ids_of(got) == want
    assert np.abs(np.array([token.logprob for token in got]) - logprobs).max() < 1e-3
    assert [token.finish for token in got] == [None] * (COUNT - 1) + ["length"]


def test_a_penalty_equals_transformers() -> None:
    pytest.importorskip("transformers")
    prompt = generated.prompt("e2b-mini", 19, 4)
    want, _, margin = generated.greedy("e2b-mini", tuple(prompt), COUNT, 1.3)
    assert margin > MARGIN
    assert want != generated.greedy("e2b-mini", tuple(prompt), COUNT)[0]  # it does something
    penalty = Sampling(repetition_penalty=1.3)
    assert ids_of(run(mini("e2b-mini"), prompt, sampling=penalty, max_tokens=COUNT)) == want


def test_a_penalty_counts_what_the_caches_hold_if_it_is_told() -> None:
    decoder, prompt = mini("e2b-mini"), generated.prompt("e2b-mini", 19, 4)
    early = ids_of(run(decoder, prompt, max_tokens=12))  # what it would say, said before
    penalty = Sampling(repetition_penalty=5.0)

    def in_two_calls(fed: list[int]) -> list[int]:
        caches = decoder.make_caches()
        run(decoder, early, caches=caches, max_tokens=1)
        return ids_of(run(decoder, prompt, caches=caches, fed=fed, sampling=penalty, max_tokens=COUNT))

    whole = ids_of(run(decoder, early + prompt, sampling=penalty, max_tokens=COUNT))
    assert in_two_calls(early) == whole
    assert in_two_calls([]) != whole


@pytest.mark.parametrize("kind", g.SMALL)
@pytest.mark.parametrize("before", [0, 3, 13])
def test_the_last_logits_alone_are_the_last_of_all(kind: str, before: int) -> None:
    model, ids = g.small(kind), mx.array(g.ids(2, before + 9))
    whole, last = model.make_caches(), model.make_caches()
    if before:
        model(ids[:, :before], caches=whole)
        model(ids[:, :before], caches=last, last_only=True)
    want = model(ids[:, before:], caches=whole)
    got = model(ids[:, before:], caches=last, last_only=True)
    assert got.shape == (2, 1, 64)
    assert g.rel_rms(got, want[:, -1:]) < 1e-6
    for one, other in zip(whole, last, strict=True):  # what is remembered is the same, to the bit
        assert one.offset == other.offset
        assert all(mx.array_equal(a, b) for a, b in zip(one.arrays, other.arrays, strict=True))
    following = mx.array(g.ids(2, 1, seed=1))
    assert g.rel_rms(model(following, caches=last), model(following, caches=whole)) < 1e-6


def test_the_last_logits_of_left_padded_rows() -> None:
    model, ids = g.small("e2b"), g.ids(2, 12)
    valid = np.array([[True] * 12, [False] * 5 + [True] * 7])
    positions = np.maximum(np.cumsum(valid, axis=1) - 1, 0).astype(np.int32)
    given = {"positions": mx.array(positions), "valid": mx.array(valid)}
    got = model(mx.array(ids), **given, last_only=True)
    assert g.rel_rms(got, model(mx.array(ids), **given)[:, -1:]) < 1e-6


@pytest.mark.parametrize("kind", g.SMALL)
def test_shared_layers_compute_the_last_position_alone(kind: str) -> None:
    model, seen = g.small(kind), {}
    model(mx.array(g.ids(1, 13)), tap=Recording(taps=seen), last_only=True)
    for i in range(model.config.num_hidden_layers):
        length = 1 if model.config.is_kv_shared(i) else 13
        assert seen[f"model.layers.{i}.output"].shape == (1, length, 24)
        assert seen[f"model.layers.{i}.self_attn.probs"].shape[-2:] == (length, 13)  # all keys of the donor
    assert seen["model.norm"].shape == (1, 1, 24)
    assert seen["logits"].shape == seen["logits.raw"].shape == (1, 1, 64)


def test_a_stop_id_is_the_last_token() -> None:
    decoder = mini("31b-mini")
    prompt = generated.prompt("31b-mini", 19, 2)
    free = ids_of(run(decoder, prompt, max_tokens=10))
    stop = next(token for at, token in enumerate(free) if at > 1 and token not in free[:at])
    got = run(decoder, prompt, max_tokens=10, stop_ids=[stop, 1])
    assert ids_of(got) == free[: free.index(stop) + 1]
    assert [token.finish for token in got] == [None] * (len(got) - 1) + ["stop"]
    assert run(decoder, prompt, max_tokens=1, stop_ids=[free[0]])[0].finish == "stop"  # rather than length


def stopped(decoder: Decoder, prompt: list[int], caches: Any) -> list[int]:
    third = ids_of(run(decoder, prompt, max_tokens=3))[2]
    return ids_of(run(decoder, prompt, caches=caches, max_tokens=9, stop_ids=[third]))


def at_length(decoder: Decoder, prompt: list[int], caches: Any) -> list[int]:
    return ids_of(run(decoder, prompt, caches=caches, max_tokens=4))


def cancelled(decoder: Decoder, prompt: list[int], caches: Any) -> list[int]:
    asked: list[int] = []
    tokens = run(decoder, prompt, caches=caches, max_tokens=9, cancelled=lambda: len(asked.append(1) or asked) > 4)
    assert tokens[-1].finish == "cancelled"
    return ids_of(tokens)


def closed(decoder: Decoder, prompt: list[int], caches: Any) -> list[int]:
    tokens = stream(decoder, prompt, caches=caches, max_tokens=9)
    got = [next(tokens).id for _ in range(3)]
    tokens.close()  # type: ignore[attr-defined]  # a generator
    return got


def left(decoder: Decoder, prompt: list[int], caches: Any) -> list[int]:
    got = []
    for token in stream(decoder, prompt, caches=caches, max_tokens=9):
        got.append(token.id)
        if len(got) == 2:
            break
    return got


def within_the_prompt(decoder: Decoder, prompt: list[int], caches: Any) -> list[int]:
    fed: list[int] = []

    def progress(done: int, total: int) -> None:
        assert total == len(prompt)
        fed.append(done)

    assert not run(decoder, prompt, caches=caches, prefill_step=4, progress=progress, cancelled=lambda: fed[-1] == 12)
    assert fed == [0, 4, 8, 12]
    assert caches[0].offset == 12
    return []


ENDS: dict[str, Callable[[Decoder, list[int], Any], list[int]]] = {
    end.__name__: end for end in (stopped, at_length, cancelled, closed, left, within_the_prompt)
}


@lru_cache(maxsize=2)
def uninterrupted(name: str) -> list[int]:
    """What follows a model's longer prompt."""
    return ids_of(run(mini(name), generated.prompt(name, *PROMPTS[name][1]), max_tokens=COUNT))


@pytest.mark.parametrize("name", ["e2b-mini", "31b-mini"])
@pytest.mark.parametrize("end", ENDS)
def test_caches_hold_what_was_fed_and_go_on(name: str, end: str) -> None:
    """However generation ends, feeding what the caches lack gives what an uninterrupted run gives."""
    decoder = mini(name)
    prompt = generated.prompt(name, *PROMPTS[name][1])
    whole = prompt + uninterrupted(name)
    caches = decoder.make_caches()
    given = ENDS[end](decoder, prompt, caches)
    assert given == whole[len(prompt) :][: len(given)]
    held = {cache.offset for cache in caches}
    assert len(held) == 1
    count = held.pop()
    assert len(prompt) + len(given) - 1 <= count <= len(prompt) + len(given) or not given
    fresh = decoder.make_caches()
    decoder(mx.array([whole[:count]]), caches=fresh)
    for one, other in zip(caches, fresh, strict=True):
        assert mx.array_equal(one.arrays[2], other.arrays[2])  # positions
        assert g.rel_rms(one.arrays[0], other.arrays[0]) < 3e-5
        assert g.rel_rms(one.arrays[1], other.arrays[1]) < 3e-5
    rest = run(decoder, whole[count : len(prompt) + 10], caches=caches, fed=whole[:count], max_tokens=COUNT - 10)
    assert ids_of(rest) == whole[len(prompt) + 10 :]


def test_the_next_step_is_under_way_before_a_token_is_given() -> None:
    decoder = Scripted(5, [3, 4, 5, 6])
    tokens = stream(decoder, [1, 2, 3, 4, 5], max_tokens=3, prefill_step=2)
    assert decoder.chunks == []  # nothing happens before it is asked for
    assert next(tokens).id == 3
    assert decoder.chunks == [[1, 2], [3, 4], [5], [3]]
    assert next(tokens).id == 4
    assert next(tokens) == Generated(id=5, logprob=pytest.approx(-np.log1p(15 * np.exp(-5)), rel=1e-5), finish="length")
    assert decoder.chunks == [[1, 2], [3, 4], [5], [3], [4]]  # and the last token is not fed: nobody asks what follows
    assert list(tokens) == []


def test_progress_of_the_prompt() -> None:
    seen: list[tuple[int, int]] = []
    run(Scripted(5, [3]), [1, 2, 3, 4, 5], max_tokens=2, prefill_step=2, progress=lambda *at: seen.append(at))
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_the_seed_decides() -> None:
    decoder, prompt = mini("trap-gqa"), generated.prompt("trap-gqa", 19, 0)
    state = [mx.array(x) for x in mx.random.state]
    mx.eval(state)

    def drawn(seed: int | None, step: int = 512) -> list[int]:
        asked = Sampling(temperature=2.0, top_k=50, seed=seed)
        return ids_of(run(decoder, prompt, sampling=asked, max_tokens=12, prefill_step=step))

    assert drawn(1) == drawn(1) == drawn(1, step=4)
    assert drawn(1) != drawn(2)
    assert drawn(None) != drawn(None)
    assert all(mx.array_equal(a, b) for a, b in zip(state, mx.random.state, strict=True))


def test_each_token_is_drawn_anew() -> None:
    """From equal logits, so that nothing but the key could make a difference."""
    even = Scripted(1, [3], height=0.0)
    got = ids_of(run(even, [1], sampling=Sampling(temperature=1.0, seed=0), max_tokens=40))
    assert len(set(got)) > 8  # of 16; of independent draws some 15


def test_numpy_integers_are_ids() -> None:
    decoder = Scripted(3, [3])
    assert ids_of(run(decoder, np.array([1, 2, 3]), max_tokens=1)) == [3]  # type: ignore[arg-type]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no prompt": ({"ids": []}, "ids: got an empty prompt; expected at least one id"),
    "id too large": ({"ids": [1, 16]}, "ids[1]: got 16; expected an id of 0 to 15"),
    "id below 0": ({"ids": [-1]}, "ids[0]: got -1"),
    "id no integer": ({"ids": [1, 2.0]}, "ids[1]: got 2.0"),
    "id a bool": ({"ids": [True]}, "ids[0]: got True"),
    "ids a text": ({"ids": "Hi"}, "ids[0]: got 'H'"),
    "stop id below 0": ({"stop_ids": [1, -1]}, "stop_ids[1]: got -1; expected an id of 0 or more"),
    "no tokens": ({"max_tokens": 0}, "max_tokens: got 0; expected an integer of at least 1"),
    "half a token": ({"max_tokens": 0.5}, "max_tokens: got 0.5"),
    "no chunks": ({"prefill_step": 0}, "prefill_step: got 0"),
    "fed and no caches": ({"fed": [1]}, "fed: got 1 ids, and caches that hold 0"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_generated_is_refused_at_the_call(what: str) -> None:
    given, message = BAD[what]
    decoder = Scripted(1, [3])
    with pytest.raises(MlxImplError) as caught:
        stream(decoder, **({"ids": [1]} | given))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert decoder.chunks == []


def test_logits_that_overflowed_are_an_error() -> None:
    with pytest.raises(MlxImplError, match="logits: got NaN; expected finite numbers; load the weights in bfloat16"):
        run(Scripted(1, [3], height=float("inf")), [1], max_tokens=2)
