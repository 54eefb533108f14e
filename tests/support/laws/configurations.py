"""Hypothesis strategies for valid Gemma 4 text configurations and token plans, and their weights by rule.

Everything shrinks towards one dense full-attention layer without per-layer embeddings, asked for one token, no cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gemma4_contract.tensors import Array
from reference import inputs, weights
from reference.cases.forward import padded_inputs
from reference.config import TextConfig
from reference.family import FULL, SLIDING
from reference.weights import Float64, fnv1a64

SIMPLEST: Mapping[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attention_k_eq_v": False,
    "bos_token_id": 2,
    "dtype": "bfloat16",
    "enable_moe_block": False,
    "eos_token_id": 1,
    "final_logit_softcapping": None,
    "global_head_dim": 2,
    "head_dim": 2,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 4,
    "hidden_size_per_layer_input": 0,
    "initializer_range": 0.02,
    "intermediate_size": 4,
    "layer_types": [FULL],
    "max_position_embeddings": 131072,
    "model_type": "gemma4_text",
    "moe_intermediate_size": None,
    "num_attention_heads": 1,
    "num_experts": None,
    "num_global_key_value_heads": None,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "num_kv_shared_layers": 0,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        FULL: {"rope_type": "default", "rope_theta": 10000.0},
        SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
    },
    "sliding_window": 1,
    "tie_word_embeddings": True,
    "top_k_experts": None,
    "use_bidirectional_attention": None,
    "use_cache": True,
    "use_double_wide_mlp": False,
    "vocab_size": 4,
    "vocab_size_per_layer_input": 4,
}
"""The simplest configuration, with every key of the published files (the experts' width has another spelling too)."""

WIDTH_SPELLINGS = ("moe_intermediate_size", "expert_intermediate_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlan:
    """How many tokens, which (a seed), fed in which steps, after how many pads; as `plan` of a case has it."""

    length: int = 1
    steps: tuple[int, ...] | None = None
    left_pad: tuple[int, ...] | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A `text_config` and a plan."""

    text_config: Mapping[str, Any]
    plan: TokenPlan

    @property
    def config(self) -> TextConfig:
        """The configuration as the reference reads it."""
        return TextConfig.from_dict(self.text_config)

    @property
    def inputs(self) -> dict[str, Array]:
        """ids, positions and, for padded batches, valid."""
        plan = self.plan
        return padded_inputs(token_ids(self.text_config, plan.length, plan.seed), _as_list(plan.left_pad))

    def with_seed(self, seed: int) -> Example:
        """The same with other token ids."""
        return replace(self, plan=replace(self.plan, seed=seed))

    def as_json(self) -> str:
        """What differs from SIMPLEST, and the plan; `from_json` reads it back."""
        config = {key: value for key, value in self.text_config.items() if SIMPLEST.get(key, ...) != value}
        absent = [key for key in SIMPLEST if key not in self.text_config]
        return json.dumps({"config": config, "absent": absent, "plan": asdict(self.plan)})

    @classmethod
    def from_json(cls, text: str) -> Example:
        """The example that `as_json` wrote."""
        raw = json.loads(text)
        config = {key: value for key, value in (SIMPLEST | raw["config"]).items() if key not in raw["absent"]}
        plan: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in raw["plan"].items()
        }
        return cls(text_config=config, plan=TokenPlan(**plan))


def model_id(text_config: Mapping[str, Any]) -> str:
    """A name that equal configurations share, so that a shrinking example keeps its weights."""
    return f"laws-{fnv1a64(json.dumps(text_config, sort_keys=True)):016x}"


def weights_of(text_config: Mapping[str, Any], *, redundant_shared_kv: bool = False) -> dict[str, Float64]:
    """Every tensor by the rule, under the name that the configuration itself gives."""
    config = TextConfig.from_dict(text_config)
    return weights.weights(model_id(text_config), config, mini=True, redundant_shared_kv=redundant_shared_kv)


def token_ids(text_config: Mapping[str, Any], length: int, seed: int) -> Array:
    """Ids [1, L] that both embedding tables hold, never the pad."""
    rows = text_config["vocab_size"]
    if text_config["hidden_size_per_layer_input"]:
        rows = min(rows, text_config["vocab_size_per_layer_input"])
    return inputs.token_ids(f"laws#ids#{seed}", length, rows)


@st.composite
def text_configs(
    draw: st.DrawFn, *, moe: bool | None = None, shared: bool | None = None, sliding: bool | None = None
) -> dict[str, Any]:
    """A valid `text_config`; True asks for experts, KV-shared layers or sliding layers, False forbids them."""
    sizes = st.integers
    kinds = draw(layer_types(shared=shared, sliding=sliding))
    counts = [n for n in shareable(kinds) if shared is None or (n > 0) == shared]
    kv_heads = draw(sizes(1, 3))
    heads = kv_heads * draw(sizes(1, 3))
    config = dict(SIMPLEST) | {
        "layer_types": kinds,
        "num_hidden_layers": len(kinds),
        "num_kv_shared_layers": draw(st.sampled_from(counts)),
        "num_key_value_heads": kv_heads,
        "num_attention_heads": heads,
        "num_global_key_value_heads": draw(
            st.none() | st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0])
        ),
        "attention_k_eq_v": draw(st.booleans()),
        "head_dim": 2 * draw(sizes(1, 6)),
        "global_head_dim": 2 * draw(sizes(1, 8)),
        "hidden_size": draw(sizes(4, 28)),
        "intermediate_size": draw(sizes(4, 20)),
        "vocab_size": draw(sizes(4, 40)),
        "vocab_size_per_layer_input": draw(sizes(4, 40)),
        "hidden_size_per_layer_input": draw(st.just(0) | sizes(1, 8)),
        "use_double_wide_mlp": draw(st.booleans()),
        "sliding_window": draw(sizes(1, 9)),
        "final_logit_softcapping": draw(st.sampled_from([None, 30.0, 0.5, 4.0])),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5])),
        "rope_parameters": {FULL: draw(ropes()), SLIDING: draw(ropes())},
        "use_bidirectional_attention": draw(st.sampled_from([None, "vision"])),
    }
    if draw(st.booleans() if moe is None else st.just(moe)):
        experts = draw(sizes(1, 6))
        config |= {
            "enable_moe_block": True,
            "num_experts": experts,
            "top_k_experts": draw(sizes(1, experts)),
            "moe_intermediate_size": draw(sizes(1, 8)),
        }
    ours, theirs = WIDTH_SPELLINGS
    if draw(st.booleans()):
        config[theirs] = config.pop(ours)
    return config


def plans(window: int, *, cached: bool | None = None, padded: bool | None = None) -> st.SearchStrategy[TokenPlan]:
    """A plan for up to 2w + 5 tokens; True or False asks for (or forbids) a cache, a padded batch."""
    return st.integers(1, 2 * window + 5).flatmap(lambda length: _plans_of(length, cached, padded))


def examples(**wanted: bool | None) -> st.SearchStrategy[Example]:
    """A configuration and a plan; `wanted` is handed to `text_configs` and `plans`."""
    of_plan = {key: wanted.pop(key) for key in ("cached", "padded") if key in wanted}
    return text_configs(**wanted).flatmap(
        lambda config: st.builds(Example, text_config=st.just(config), plan=plans(config["sliding_window"], **of_plan))
    )


def shareable(kinds: list[str]) -> list[int]:
    """The valid values of `num_kv_shared_layers`: each type has a layer before the shared range."""
    return [count for count in range(len(kinds)) if set(kinds[: len(kinds) - count]) == set(kinds)]


def compositions(length: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Any way to feed `length` tokens in calls, one call first, one token a call often."""
    if length == 1:
        return st.just((1,))
    cuts = st.sets(st.integers(1, length - 1)) | st.just(set(range(1, length)))
    return cuts.map(lambda at: tuple(np.diff([0, *sorted(at), length]).tolist()))


def _plans_of(length: int, cached: bool | None, padded: bool | None) -> st.SearchStrategy[TokenPlan]:
    steps: st.SearchStrategy[Any] = st.none() | compositions(length)
    if cached is not None:
        steps = compositions(length) if cached else st.none()
    batches: st.SearchStrategy[Any] = st.lists(st.integers(0, length - 1), min_size=1, max_size=3).map(tuple)
    if padded is not True:
        batches = st.none() if padded is False else st.none() | batches
    return st.builds(TokenPlan, length=st.just(length), steps=steps, left_pad=batches, seed=st.integers(0, 999))


def layer_types(*, shared: bool | None, sliding: bool | None) -> st.SearchStrategy[list[str]]:
    """One to six layer types, the last of them full attention."""
    kinds = st.just(FULL) if sliding is False else st.sampled_from([FULL, SLIDING])
    stacks = st.lists(kinds, min_size=1 if shared or sliding else 0, max_size=5).map(lambda before: [*before, FULL])
    if sliding:
        stacks = stacks.filter(lambda stack: SLIDING in stack)
    return stacks.filter(lambda stack: len(shareable(stack)) > 1) if shared else stacks


@st.composite
def ropes(draw: st.DrawFn) -> dict[str, Any]:
    """One entry of `rope_parameters`; either layer type may have either rotary type."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": draw(st.sampled_from([10000.0, 1e6, 10.0, 500.0]))}
    if draw(st.booleans()):
        factor = draw(st.sampled_from([1.0, 0.25, 0.5, 0.3, 0.75, 0.0]))
        rope |= {"rope_type": "proportional", "partial_rotary_factor": factor}
    return rope


def _as_list(values: tuple[int, ...] | None) -> list[int] | None:
    return None if values is None else list(values)
