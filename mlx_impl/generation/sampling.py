"""From logits to the next token.

The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p. Each filter sees what the
filter before it has left. B batch (here 1), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from mlx_impl.checkpoint.files import read_json
from mlx_impl.errors import MlxImplError, problem, shown

GENERATION_CONFIG = "generation_config.json"
_LARGEST_SEED = 2**64 - 1
_PUBLISHED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def _number(of: object, name: str, expected: str, fits: Callable[[float], bool]) -> None:
    value = getattr(of, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not fits(value):  # NaN never fits
        raise problem(name, got=shown(value), expected=f"a number, {expected}", cure="correct it")


def _integer(of: object, name: str, least: int, expected: str, most: int | None = None) -> None:
    value = getattr(of, name)
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):
        raise problem(name, got=shown(value), expected=f"an integer, {expected}", cure="correct it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a token is chosen: the most probable one by default. Filters have an effect if temperature is above 0.

    Raises MlxImplError, naming the field, for a value out of its range.
    """

    temperature: float = 0.0
    """Logits are divided by it; 0 takes the largest logit, and the first of several largest ones."""
    top_k: int = 0
    """Keep the k most probable tokens, and those as probable as the last of them; 0 keeps all."""
    top_p: float = 1.0
    """Keep the most probable tokens, as few as have probabilities that sum to at least p."""
    min_p: float = 0.0
    """Keep the tokens that are at least p times as probable as the most probable one."""
    repetition_penalty: float = 1.0
    """Positive logits of recent tokens are divided by it, negative ones multiplied; at temperature 0 too."""
    repetition_context: int | None = None
    """How many of the latest ids are recent, including those of the prompt; None for all."""
    seed: int | None = None
    """The same seed gives the same tokens; None takes a random one from the system."""

    def __post_init__(self) -> None:
        # The bounds of temperature and penalty are far from useful values; they keep quotients from overflowing.
        _number(self, "temperature", "0 (greedy) or 0.0001 to 10000", lambda x: x == 0 or 1e-4 <= x <= 1e4)
        _integer(self, "top_k", 0, "0 (all) or more")
        _number(self, "top_p", "above 0, at most 1", lambda x: 0 < x <= 1)
        _number(self, "min_p", "0 to 1", lambda x: 0 <= x <= 1)
        _number(self, "repetition_penalty", "0.001 to 1000", lambda x: 1e-3 <= x <= 1e3)
        if self.repetition_context is not None:
            _integer(self, "repetition_context", 1, "None (all) or 1 and more")
        if self.seed is not None:
            _integer(self, "seed", 0, f"None or 0 to {_LARGEST_SEED}", _LARGEST_SEED)


GREEDY = Sampling()


def published_sampling(checkpoint_dir: str | Path) -> Sampling:
    """The sampling of a checkpoint's `generation_config.json`; greedy without this file, or without `do_sample`.

    Raises MlxImplError, naming the file, for a value that is not allowed.
    """
    path = Path(checkpoint_dir) / GENERATION_CONFIG
    if not path.is_file():
        return GREEDY
    content = read_json(path)
    if not isinstance(content, dict):
        raise problem(str(path), got=shown(content), expected="a JSON object", cure="download it again")
    given = {key: content[key] for key in _PUBLISHED if content.get(key) is not None}
    try:
        # transformers uses temperature 1 if a file that samples names none.
        published = Sampling(**({"temperature": 1.0} | given))
    except MlxImplError as error:
        raise MlxImplError(f"{path}: {error}") from None
    return published if content.get("do_sample") is True else replace(published, temperature=0.0)


def sample(logits: mx.array, recent: mx.array, sampling: Sampling, key: mx.array) -> mx.array:
    """A token drawn with `key` (`mx.random.key`) from softmax(adjusted(logits)); the largest at temperature 0.

    logits [1, V] float32, recent [n] int32 (n may be 0), oldest first -> [1] uint32. Nothing is read back to Python,
    and MLX's own random state does not change.
    """
    scores = adjusted(logits, recent, sampling)
    if sampling.temperature == 0:
        return mx.argmax(scores, axis=-1)
    return mx.random.categorical(scores, key=key)


def adjusted(logits: mx.array, recent: mx.array, sampling: Sampling) -> mx.array:
    """logits after penalty, temperature and filters: [1, V], recent [n] -> [1, V] float32, -inf if filtered out.

    Source: `repetition_penalty`, `temperature`, `top_k`, `top_p`, `min_p` of generation_config.json.
    """
    scores = logits.astype(mx.float32)
    if sampling.repetition_penalty != 1.0:
        first = 0 if sampling.repetition_context is None else max(recent.size - sampling.repetition_context, 0)
        scores = penalised(scores, recent[first:], sampling.repetition_penalty)
    if sampling.temperature == 0:
        return scores
    scores = scores / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        scores = keep_top_k(scores, sampling.top_k)
    if sampling.top_p < 1:
        scores = keep_top_p(scores, sampling.top_p)
    if sampling.min_p > 0:
        scores = keep_min_p(scores, sampling.min_p)
    return scores


def penalised(scores: mx.array, recent: mx.array, penalty: float) -> mx.array:
    """s / penalty if s > 0, or else s * penalty, once for each id in `recent`, however often it occurs there.

    scores [1, V], recent [n] -> [1, V].
    """
    if not recent.size:
        return scores
    picked = scores[:, recent]  # [1, n]
    changed = mx.where(picked > 0, picked / penalty, picked * penalty)
    return mx.put_along_axis(scores, recent[None], changed, axis=-1)


def keep_top_k(scores: mx.array, k: int) -> mx.array:
    """-inf for scores below the k-th largest: [1, V] -> [1, V]."""
    kth = mx.min(mx.topk(scores, k, axis=-1), axis=-1, keepdims=True)  # [1, 1]
    return mx.where(scores < kth, -mx.inf, scores)


def keep_top_p(scores: mx.array, p: float) -> mx.array:
    """-inf for the least probable tokens whose probabilities sum to at most 1 - p: [1, V] -> [1, V].

    The most probable token is kept for every p.
    """
    order = mx.argsort(scores, axis=-1)  # ascending
    ascending = mx.take_along_axis(scores, order, axis=-1)
    total = mx.cumsum(mx.softmax(ascending, axis=-1), axis=-1)
    left_out = (total <= 1 - p) & (mx.arange(scores.shape[-1]) < scores.shape[-1] - 1)
    return mx.put_along_axis(scores, order, mx.where(left_out, -mx.inf, ascending), axis=-1)


def keep_min_p(scores: mx.array, p: float) -> mx.array:
    """-inf for tokens less than p times as probable as the most probable one: [1, V] -> [1, V]."""
    probs = mx.softmax(scores, axis=-1)
    return mx.where(probs < p * mx.max(probs, axis=-1, keepdims=True), -mx.inf, scores)
