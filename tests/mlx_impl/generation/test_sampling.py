"""The distribution that tokens are drawn from is transformers', and the seed alone decides what is drawn."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_impl import MlxImplError
from mlx_impl.generation.sampling import GREEDY, Sampling, adjusted, published_sampling, sample

VOCAB = 200
RECENT = [5, 17, 5, 60, 199, 0, 17]

SETTINGS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.7},
    "hot": {"temperature": 3.0},
    "top-k": {"temperature": 1.0, "top_k": 7},
    "top-k of one": {"temperature": 1.0, "top_k": 1},
    "top-k of more than all": {"temperature": 1.0, "top_k": 1000},
    "top-p": {"temperature": 1.0, "top_p": 0.8},
    "top-p next to nothing": {"temperature": 1.0, "top_p": 1e-6},
    "top-p that rounds to nothing": {"temperature": 1.0, "top_p": 1e-9},
    "min-p": {"temperature": 1.0, "min_p": 0.05},
    "min-p of one": {"temperature": 1.0, "min_p": 1.0},
    "penalty": {"temperature": 1.0, "repetition_penalty": 1.3},
    "reward": {"temperature": 1.0, "repetition_penalty": 0.7},
    "as published": {"temperature": 1.0, "top_k": 64, "top_p": 0.95},
    "all": {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2},
    # Each filter cuts what the one before it has left, so that another order gives another distribution.
    "top-p behind top-k": {"temperature": 2.0, "top_k": 12, "top_p": 0.5},
    "min-p behind temperature": {"temperature": 0.25, "min_p": 0.2},
}


def logits(seed: int) -> np.ndarray:
    """Random logits [1, V] float32 of either sign, no two alike."""
    return np.random.default_rng(seed).normal(scale=4.0, size=(1, VOCAB)).astype(np.float32)


def theirs(scores: np.ndarray, asked: dict[str, Any]) -> np.ndarray:
    """What transformers makes of logits: its processors in the order in which `generate` puts them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GenerationConfig(do_sample=True, **{"top_k": 0} | asked)
    config._eos_token_tensor = None
    mixin = transformers.GenerationMixin()
    mixin.config = SimpleNamespace(is_encoder_decoder=False)
    order = mixin._get_logits_processor(config, input_ids_seq_length=len(RECENT))
    out: np.ndarray = order(torch.tensor([RECENT]), torch.from_numpy(scores.copy())).numpy()
    return out


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("seed", range(5))
def test_the_distribution_is_transformers(setting: str, seed: int) -> None:
    want = theirs(logits(seed), SETTINGS[setting])
    got = np.array(adjusted(mx.array(logits(seed)), mx.array(RECENT), Sampling(**SETTINGS[setting])))
    assert np.array_equal(np.isfinite(got), np.isfinite(want))  # the same tokens are left
    probs, expected = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (got, want))
    assert np.abs(probs - expected).max() < 1e-6


def test_each_setting_makes_a_difference() -> None:
    """Or the test above could not see that one is ignored."""
    plain = np.array(adjusted(mx.array(logits(0)), mx.array(RECENT), Sampling(temperature=1.0)))
    for name, asked in SETTINGS.items():
        got = np.array(adjusted(mx.array(logits(0)), mx.array(RECENT), Sampling(**asked)))
        assert np.array_equal(got, plain) == (name == "top-k of more than all"), name


def test_the_context_of_the_penalty() -> None:
    scores = mx.array(logits(1))
    short = Sampling(temperature=1.0, repetition_penalty=2.0, repetition_context=2)
    whole = Sampling(temperature=1.0, repetition_penalty=2.0)
    changed = np.flatnonzero(np.array(adjusted(scores, mx.array(RECENT), short) != scores)[0])
    assert changed.tolist() == [0, 17]
    assert mx.array_equal(adjusted(scores, mx.array(RECENT), short), adjusted(scores, mx.array([0, 17]), whole))
    longer = Sampling(temperature=1.0, repetition_penalty=2.0, repetition_context=100)
    assert mx.array_equal(adjusted(scores, mx.array(RECENT), longer), adjusted(scores, mx.array(RECENT), whole))
    nothing = mx.array([], dtype=mx.int32)
    assert mx.array_equal(adjusted(scores, nothing, whole), scores)


def test_temperature_0_takes_the_largest_and_of_equal_ones_the_first() -> None:
    scores = mx.array([[0.0, 3.0, -1.0, 3.0]])
    key = mx.random.key(0)
    assert sample(scores, mx.array([], dtype=mx.int32), GREEDY, key).tolist() == [1]
    penalty = Sampling(repetition_penalty=2.0)
    assert sample(scores, mx.array([1]), penalty, key).tolist() == [3]
    filtered = Sampling(top_k=1, top_p=0.1, min_p=0.9)  # of no effect
    assert sample(scores, mx.array([1]), filtered, key).tolist() == [1]


def test_draws_follow_the_distribution() -> None:
    asked = Sampling(temperature=1.0, top_k=4)
    scores, nothing = mx.array(logits(2)), mx.array([], dtype=mx.int32)
    want = np.array(mx.softmax(adjusted(scores, nothing, asked), axis=-1))[0]
    count = 2000
    drawn = mx.stack([sample(scores, nothing, asked, key) for key in mx.random.split(mx.random.key(7), count)])
    seen = np.bincount(np.array(drawn).reshape(-1), minlength=VOCAB) / count
    assert set(np.flatnonzero(seen)) <= set(np.flatnonzero(want))
    assert np.abs(seen - want).max() < 4 * 0.5 / np.sqrt(count)  # four standard deviations at most


def test_the_key_alone_decides_and_the_global_state_stays() -> None:
    asked = Sampling(temperature=1.0)
    scores, nothing = mx.array(logits(3)), mx.array([], dtype=mx.int32)
    before = [mx.array(x) for x in mx.random.state]
    mx.eval(before)
    first = [sample(scores, nothing, asked, mx.random.key(n)).item() for n in range(20)]
    assert len(set(first)) > 1
    assert [sample(scores, nothing, asked, mx.random.key(n)).item() for n in range(20)] == first
    assert all(mx.array_equal(a, b) for a, b in zip(before, mx.random.state, strict=True))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "temperature below 0": ({"temperature": -0.1}, "temperature: got -0.1; expected a number, 0 (greedy) or 0.0001"),
    "temperature NaN": ({"temperature": float("nan")}, "temperature: got nan"),
    "temperature infinite": ({"temperature": float("inf")}, "temperature: got inf"),
    "temperature a word": ({"temperature": "hot"}, "temperature: got 'hot'"),
    "temperature huge": ({"temperature": 10**400}, "temperature: got 1000"),
    "top_k below 0": ({"top_k": -1}, "top_k: got -1; expected an integer, 0 (all) or more"),
    "top_k no integer": ({"top_k": 1.5}, "top_k: got 1.5"),
    "top_k a bool": ({"top_k": True}, "top_k: got True"),
    "top_p 0": ({"top_p": 0}, "top_p: got 0; expected a number, above 0, at most 1"),
    "top_p above 1": ({"top_p": 1.01}, "top_p: got 1.01"),
    "min_p above 1": ({"min_p": 2}, "min_p: got 2; expected a number, 0 to 1"),
    "min_p below 0": ({"min_p": -0.5}, "min_p: got -0.5"),
    "penalty 0": ({"repetition_penalty": 0}, "repetition_penalty: got 0; expected a number, 0.001 to 1000"),
    "context 0": ({"repetition_context": 0}, "repetition_context: got 0; expected an integer, None (all) or 1"),
    "seed below 0": ({"seed": -1}, "seed: got -1; expected an integer, None or 0 to 18446744073709551615"),
    "seed too large": ({"seed": 2**64}, "seed: got 18446744073709551616"),
}


@pytest.mark.parametrize("what", BAD)
def test_values_out_of_range_are_refused_in_one_line(what: str) -> None:
    given, message = BAD[what]
    with pytest.raises(MlxImplError) as caught:
        Sampling(**given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_bounds_themselves_work() -> None:
    scores, recent = mx.array(logits(4)), mx.array(RECENT)
    for asked in (
        Sampling(temperature=1e-4, repetition_penalty=1e-3),
        Sampling(temperature=1e4, repetition_penalty=1e3, top_p=1, min_p=1),
    ):
        assert 0 <= sample(scores, recent, asked, mx.random.key(0)).item() < VOCAB
        probs = mx.softmax(adjusted(scores, recent, asked), axis=-1)
        assert bool(mx.all(mx.isfinite(probs)).item())
    assert Sampling(seed=2**64 - 1).seed == 2**64 - 1


PUBLISHED = {"bos_token_id": 2, "do_sample": True, "eos_token_id": [1, 106, 50], "pad_token_id": 0}


def published(folder: Path, content: object) -> Sampling:
    """What a generation_config.json of this content asks for."""
    (folder / "generation_config.json").write_text(json.dumps(content))
    return published_sampling(folder)


def test_a_checkpoint_s_own_settings(tmp_path: Path) -> None:
    assert published_sampling(tmp_path) == GREEDY
    asked = published(tmp_path, PUBLISHED | {"temperature": 1.0, "top_k": 64, "top_p": 0.95})
    assert asked == Sampling(temperature=1.0, top_k=64, top_p=0.95)
    assert published(tmp_path, PUBLISHED | {"top_k": 64, "min_p": None}) == Sampling(temperature=1.0, top_k=64)
    assert published(tmp_path, {"do_sample": False, "temperature": 0.5}).temperature == 0
    assert published(tmp_path, {"temperature": 0.5}).temperature == 0  # as transformers has it
    assert published(tmp_path, {"repetition_penalty": 1.5}).repetition_penalty == 1.5


@pytest.mark.parametrize(
    ("content", "message"),
    [([1], "got [1]; expected a JSON object"), (PUBLISHED | {"top_p": "most"}, ": top_p: got 'most'")],
)
def test_a_broken_file_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(MlxImplError) as caught:
        published(tmp_path, content)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "generation_config.json"))
