"""A checkpoint that answers, with the caches that it keeps from one answer to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_impl.chat.prompt import Template, render
from mlx_impl.chat.tokenizer import Tokenizer
from mlx_impl.generation import prompt_cache
from mlx_impl.generation.generate import Finish, Generated, Progress, prefill, stream
from mlx_impl.generation.prompt_cache import Mark, StoredModel
from mlx_impl.generation.sampling import Sampling
from mlx_impl.model.config import Config

BOS = "<bos>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How much time and memory one answer took."""

    prompt_tokens: int
    reused_tokens: int
    first_token_seconds: float
    generated_tokens: int
    decode_seconds: float
    active_memory: int
    peak_memory: int
    finish: Finish

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens per second, without reused ones, until the first token of the answer."""
        return (self.prompt_tokens - self.reused_tokens) / max(self.first_token_seconds, 1e-9)

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first token; 0 if there is only one."""
        return max(self.generated_tokens - 1, 0) / max(self.decode_seconds, 1e-9)


def template_of(config: Config, name: str | None) -> Template:
    """The template of this name, or else the current one of the model's size class: small models have PLE."""
    return Template.parse(name or ("small" if config.hidden_size_per_layer_input > 0 else "large"))


def chat_prompt(
    messages: Sequence[Mapping[str, Any]], template: Template, thinking: bool, tokenizer: Tokenizer
) -> tuple[list[int], int]:
    """The ids of a prompt, and how many of them another prompt may share: the system turn, or else all but the last."""
    ids = tokenizer.encode(render(messages, template, enable_thinking=thinking))
    if messages[0]["role"] == "system":
        head = render(messages[:1], template, enable_thinking=thinking, add_generation_prompt=False)
        shared = tokenizer.encode(head)
        if ids[: len(shared)] == shared:
            return ids, len(shared)
    return ids, len(ids) - 1


def raw_prompt(text: str, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """The ids of a text after one <bos>, and how many of them to remember: all but the last."""
    ids = tokenizer.encode(text if text.startswith(BOS) else BOS + text)
    return ids, len(ids) - 1


class Session:
    """A decoder with its caches, the ids that they hold, and marks to go back to."""

    def __init__(self, decoder: StoredModel[Any], cache_file: Path | None) -> None:
        """Raise MlxImplError for a prompt cache that exists and cannot be read."""
        self.decoder = decoder
        self.cache_file = cache_file
        self._caches, self._fed = self.decoder.make_caches(), list[int]()
        if cache_file is not None and cache_file.exists():
            self._caches, self._fed = prompt_cache.load(cache_file, self.decoder)
        self._stored = list(self._fed)  # what the file holds
        self._marks: list[Mark] = []
        self.figures: Figures | None = None

    def answer(
        self,
        ids: list[int],
        places: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        stop_ids: Sequence[int],
        prefill_step: int,
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> Iterator[Generated]:
        """The tokens that follow `ids`; caches are reused as far as possible.

        `places` are numbers of ids at which a mark is made, to go back to later. When the iterator is exhausted,
        `figures` holds its time and memory.
        """
        start = time.perf_counter()
        mx.reset_peak_memory()
        self._caches, reused = prompt_cache.reuse(self._caches, self._fed, ids, self._marks)
        self._fed = ids[:reused]
        self._marks = [mark for mark in self._marks if len(mark.fed) <= reused and len(mark.fed) in places]
        tokens: list[Generated] = []
        first = end = start
        if self._feed(ids, places, prefill_step, progress, cancelled):
            offset = len(self._fed)
            for token in stream(
                self.decoder,
                ids[offset:],
                sampling=sampling,
                max_tokens=max_tokens,
                stop_ids=stop_ids,
                caches=self._caches,
                fed=self._fed,
                prefill_step=prefill_step,
                progress=_onward(progress, offset - reused, len(ids) - reused),
                cancelled=cancelled,
            ):
                end = time.perf_counter()
                first = end if not tokens else first
                tokens.append(token)
                yield token
        held = self._caches[0].offset
        self._fed = [*ids, *(token.id for token in tokens)][:held]
        self.figures = Figures(
            prompt_tokens=len(ids),
            reused_tokens=reused,
            first_token_seconds=first - start,
            generated_tokens=len(tokens),
            decode_seconds=end - first,
            active_memory=mx.get_active_memory(),
            peak_memory=mx.get_peak_memory(),
            finish=(tokens[-1].finish if tokens else None) or "cancelled",
        )

    def _feed(
        self, ids: list[int], places: Sequence[int], step: int, progress: Progress, cancelled: Callable[[], bool]
    ) -> bool:
        """Feed the ids up to the last of `places`, with a mark at each place; False if this was cancelled."""
        reused = len(self._fed)
        for place in sorted({place for place in places if reused <= place < len(ids)}):
            at = len(self._fed)
            if place > at:
                shown = _onward(progress, at - reused, len(ids) - reused)
                prefill(self.decoder, ids[at:place], self._caches, step, shown, cancelled)
                self._fed = ids[: self._caches[0].offset]
            if len(self._fed) < place:
                return False
            if place > 0 and place not in [len(mark.fed) for mark in self._marks]:
                self._marks.append(prompt_cache.mark(self._caches, self._fed))
        return True

    def save(self, ids: list[int], count: int) -> None:
        """Write the caches of the first `count` ids to the cache file, if there is one.

        The file is not changed if it holds them already, or if the caches cannot go back to them.
        """
        if self.cache_file is None or count == 0 or ids[:count] == self._stored:
            return
        caches, kept = prompt_cache.reuse(self._caches, self._fed, ids[: count + 1], self._marks)
        if kept == count:
            prompt_cache.save(self.cache_file, self.decoder, caches, ids[:count])


def _onward(progress: Progress, before: int, total: int) -> Progress:
    """Progress of a part of the prompt, reported as progress of the whole; `before` tokens were done earlier."""
    return lambda done, _: progress(before + done, total)
