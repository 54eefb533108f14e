"""Text generation: the prompt is fed in chunks, then one token after the other is generated.

B batch (here 1), L tokens of a pass, V vocabulary.
"""

from __future__ import annotations

import operator
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import mlx.core as mx

from mlx_impl.errors import problem, shown
from mlx_impl.generation.sampling import GREEDY, Sampling, sample
from mlx_impl.model.config import Config

Finish = Literal["stop", "length", "cancelled"]
Progress = Callable[[int, int], None]
"""Called with the number of prompt tokens that were fed, and the number of all prompt tokens."""


class Cache(Protocol):
    """What generation needs of a cache."""

    @property
    def offset(self) -> int:
        """How many tokens were fed so far."""

    @property
    def arrays(self) -> list[mx.array]:
        """All arrays that are kept."""


C = TypeVar("C", bound=Cache)


class Model(Protocol[C]):
    """What generation needs of a decoder: `Decoder`, or anything that is called in the same way."""

    config: Config

    def make_caches(self) -> list[C]:
        """Empty caches."""

    def __call__(self, ids: mx.array, *, caches: Sequence[C], last_only: bool) -> mx.array:
        """ids [1, L] -> logits [1, 1, V] of the last token when last_only; the caches are updated in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One token. `finish` says why the last token is the last; it is None for all others."""

    id: int
    logprob: float
    """Log probability of the token by the model, before penalty, temperature and filters."""
    finish: Finish | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One token that is being computed: id [1] and logprob [1], which are not read yet."""

    id: mx.array
    logprob: mx.array


def stream(
    decoder: Model[C],
    ids: Sequence[int],
    *,
    sampling: Sampling = GREEDY,
    max_tokens: int = 256,
    stop_ids: Sequence[int] = (),
    caches: list[C] | None = None,
    fed: Sequence[int] = (),
    prefill_step: int = 512,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Generated]:
    """The tokens that follow `ids`, each as soon as it is known, up to one of `stop_ids` (included) or `max_tokens`.

    `caches` (of `make_caches`) are continued and updated in place; `fed` are the ids that they hold, which count for
    the repetition penalty. When the iterator is exhausted or closed, the caches hold exactly the first
    `caches[0].offset` of fed + ids + generated tokens: all of them, or all but the last.

    The prompt is fed `prefill_step` tokens at a time; `cancelled` is called after each chunk and each token. An
    iterator without any token was cancelled before the first one.

    The call raises MlxImplError for a prompt that is empty or holds ids that the model does not have, and for counts
    below 1; the iterator raises it if logits are not finite.
    """
    known = decoder.config.vocab_size
    prompt = _ids("ids", ids, known)
    if not prompt:
        raise problem("ids", got="an empty prompt", expected="at least one id", cure="start with <bos>")
    stops = frozenset(_ids("stop_ids", stop_ids, None))
    before = _ids("fed", fed, known)
    for name, count in (("max_tokens", max_tokens), ("prefill_step", prefill_step)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise problem(name, got=shown(count), expected="an integer of at least 1", cure="correct it")
    held = decoder.make_caches() if caches is None else caches
    if before and len(before) != held[0].offset:
        got = f"{len(before)} ids, and caches that hold {held[0].offset}"
        raise problem("fed", got=got, expected="exactly what the caches hold", cure="cut it to caches[0].offset")

    def tokens() -> Iterator[Generated]:
        logits = prefill(decoder, prompt, held, prefill_step, progress, cancelled)
        if logits is not None:
            recent = mx.array([*before, *prompt], dtype=mx.int32)
            yield from _tokens_after_prompt(decoder, logits, recent, sampling, max_tokens, stops, held, cancelled)

    return tokens()


def prefill(
    decoder: Model[C],
    ids: Sequence[int],
    caches: Sequence[C],
    step: int,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> mx.array | None:
    """Feed one or more ids in chunks of `step`; the logits [1, V] after the last id, or None if cancelled before it.

    Every chunk is computed before the next begins, so that activations need the memory of one chunk.
    """
    logits = None
    for start in range(0, len(ids), step):
        if progress is not None:
            progress(start, len(ids))
        if cancelled is not None and cancelled():
            return None
        chunk = mx.array([ids[start : start + step]], dtype=mx.int32)  # [1, L]
        logits = decoder(chunk, caches=caches, last_only=True)[:, 0]  # [1, V]
        if start + step < len(ids):  # these logits are never computed, because nothing reads them
            mx.eval([cache.arrays for cache in caches])
    mx.eval(logits, [cache.arrays for cache in caches])
    if progress is not None:
        progress(len(ids), len(ids))
    return logits


def _tokens_after_prompt(
    decoder: Model[C],
    logits: mx.array,
    recent: mx.array,
    sampling: Sampling,
    max_tokens: int,
    stops: frozenset[int],
    caches: Sequence[C],
    cancelled: Callable[[], bool] | None,
) -> Iterator[Generated]:
    """The tokens after a prompt; the next token is started before the last is read, so that the device never waits."""
    key = mx.random.key(secrets.randbits(64) if sampling.seed is None else sampling.seed)
    key, step, recent = _start_token(logits, recent, sampling, key)
    for count in range(1, max_tokens + 1):
        upcoming = None
        if count < max_tokens:
            row = decoder(step.id[None].astype(mx.int32), caches=caches, last_only=True)[:, 0]  # [1, V]
            key, upcoming, recent = _start_token(row, recent, sampling, key)
        token, logprob = int(_read(step.id)), _read(step.logprob)
        if logprob != logprob:  # only NaN differs from itself
            cure = "load the weights in bfloat16 or float32"
            raise problem("logits", got="NaN", expected="finite numbers", cure=cure)
        finish: Finish | None = None
        if token in stops:
            finish = "stop"
        elif upcoming is None:
            finish = "length"
        elif cancelled is not None and cancelled():
            finish = "cancelled"
        yield Generated(id=token, logprob=logprob, finish=finish)
        if finish is not None or upcoming is None:
            return
        step = upcoming


def _start_token(
    logits: mx.array, recent: mx.array, sampling: Sampling, key: mx.array
) -> tuple[mx.array, _Step, mx.array]:
    """Start to compute a token: logits [1, V], recent [n] -> the next key, the token, recent [n + 1]."""
    logits = logits.astype(mx.float32)
    key, this = mx.random.split(key)
    chosen = sample(logits, recent, sampling, this)  # [1]
    logprob = mx.take_along_axis(logits, chosen[None], axis=-1)[0] - mx.logsumexp(logits, axis=-1)  # [1]
    if sampling.repetition_penalty != 1.0:
        recent = mx.concatenate([recent, chosen.astype(mx.int32)])
    mx.async_eval(chosen, logprob)  # type: ignore[no-untyped-call]  # bare in mlx
    return key, _Step(id=chosen, logprob=logprob), recent


def _read(number: mx.array) -> float:
    """The number in an array [1]; waits until it is computed."""
    return number.item()  # type: ignore[return-value]  # MLX allows complex numbers here, we never have one


def _ids(name: str, ids: Sequence[int], vocab_size: int | None) -> list[int]:
    """The ids as plain ints; MlxImplError for one that is negative, or not below `vocab_size` if that is given."""
    checked = []
    for index, value in enumerate(ids):
        try:
            number = -1 if isinstance(value, bool) else operator.index(value)
        except TypeError:
            number = -1
        if number < 0 or (vocab_size is not None and number >= vocab_size):
            expected = "an id of 0 or more" if vocab_size is None else f"an id of 0 to {vocab_size - 1}"
            cure = "take the tokenizer that belongs to this model"
            raise problem(f"{name}[{index}]", got=shown(value), expected=expected, cure=cure)
        checked.append(number)
    return checked
