"""Miniatures to generate with, and what transformers generates from the same checkpoint."""

import json
from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np

import mlx_impl
from mlx_impl import Decoder
from tests.support import ROOT

MODELS = ROOT / "fixtures" / "models"


@lru_cache(maxsize=4)
def mini(name: str) -> Decoder:
    """A miniature of the fixtures in float32."""
    return mlx_impl.load(MODELS / name)


def prompt(name: str, length: int, seed: int) -> list[int]:
    """Random ids of a miniature's vocabulary, control tokens left out."""
    return [int(n) for n in np.random.default_rng(seed).integers(3, mini(name).config.vocab_size, size=length)]


@lru_cache(maxsize=4)
def theirs(name: str) -> Any:
    """The same checkpoint in transformers."""
    import torch

    from reference.transformers_model.build import build_model

    fields = json.loads((MODELS / name / "config.json").read_text())
    weights = {name: np.array(value) for name, value in mini(name).tensors().items()}
    return build_model(fields.get("text_config", fields), weights, torch.float32, "eager", lifted=False)


@lru_cache(maxsize=64)
def greedy(name: str, ids: tuple[int, ...], count: int, penalty: float = 1.0) -> tuple[list[int], list[float], float]:
    """What transformers' generate(do_sample=False) gives: ids, their log probabilities, and the smallest margin.

    The margin is that of the largest score over the second largest, over all tokens.
    """
    import torch

    given = torch.tensor([ids])
    out = theirs(name).generate(
        given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=None,
        pad_token_id=0,
        repetition_penalty=penalty,
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
    )
    new = out.sequences[0, len(ids) :].tolist()
    logprobs = torch.stack(out.logits)[:, 0].double().log_softmax(-1)
    largest = torch.stack(out.scores)[:, 0].double().topk(2).values
    margin = (largest[:, 0] - largest[:, 1]).min().item()
    return new, [logprobs[at, token].item() for at, token in enumerate(new)], margin


class ScriptedCache:
    """Counts what it was fed."""

    def __init__(self) -> None:
        self.offset = 0
        self.arrays: list[mx.array] = []


class Scripted:
    """A decoder that answers a prompt with given tokens; it keeps what it was fed, chunk by chunk."""

    def __init__(self, prompt: int, says: list[int], height: float = 5.0) -> None:
        self.config: Any = SimpleNamespace(vocab_size=16)
        self.prompt, self.says, self.height = prompt, says, height
        self.chunks: list[list[int]] = []

    def make_caches(self) -> list[ScriptedCache]:
        return [ScriptedCache()]

    def __call__(self, ids: mx.array, *, caches: Sequence[ScriptedCache], last_only: bool) -> mx.array:
        assert last_only
        self.chunks.append(ids[0].tolist())  # type: ignore[arg-type]
        caches[0].offset += ids.shape[1]
        at = max(caches[0].offset - self.prompt, 0)
        return mx.where(mx.arange(16) == self.says[min(at, len(self.says) - 1)], self.height, 0.0)[None, None]
