"""Teacher-forced cases: one layer, its attention alone, or each of its nodes alone, on values of the forward golden."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gemma4_contract.routing import routing_margins
from gemma4_contract.subgraph import POSITIONS, subgraph
from gemma4_contract.tensors import Array
from reference import weights
from reference.cases.draft import Draft
from reference.cases.forward import golden_ids
from reference.cases.routing import wide_rows
from reference.config import TextConfig
from reference.models import MODELS, Model
from reference.oracle import answers, plans
from reference.oracle.decoder import Decoder
from reference.taps import Tap, closed, layer_taps, output_of

ATTENTION_MODELS = ("e2b-mini", "12b-mini")
"""One model with KV sharing, one with K = V: together they have every kind of attention."""


def drafts(seed: int = 0) -> Iterator[Draft]:
    """Every kind of layer of every miniature, whole and node by node; every kind of attention alone."""
    for model in MODELS.values():
        if model.nested:
            for name, layer in layer_kinds(model.config).items():
                whole = layer_draft(model, name, layer, seed)
                yield whole
                yield subgraph_draft(model, name, whole, seed)
                if model.id in ATTENTION_MODELS:
                    yield attention_draft(model, name, layer, seed)


def layer_kinds(config: TextConfig) -> dict[str, int]:
    """Name -> index of a layer of every kind: sliding or full, own or shared keys and values, and the hot last one."""
    kinds: dict[str, int] = {}
    for layer in range(config.num_hidden_layers):
        span = "sliding" if config.is_sliding(layer) else "full"
        owner = "shared" if config.is_kv_shared(layer) else "own"
        hot = "-hot" if layer == config.last_full_layer else ""
        kinds.setdefault(f"{span}-{owner}{hot}", layer)
    return kinds


def layer_draft(model: Model, name: str, layer: int, seed: int) -> Draft:
    """A layer on the hidden state that enters it."""
    return Draft(
        id=f"layer/{model.id}/{name}",
        kind="layer",
        level="L1",
        topic="layer",
        model=model.id,
        purpose=f"Layer {layer} ({name}) on given hidden states, two tokens past the window.",
        taps=inner_taps(model.config, layer),
        inputs={
            "hidden": _hidden(model, layer, seed),
            **_positions_and_donor(model, layer, seed),
            **_ple_slice(model, layer, seed),
        },
        params={"layer": layer},
    )


def subgraph_draft(model: Model, name: str, whole: Draft, seed: int) -> Draft:
    """Every node of a layer, each from golden values of its own parents; `whole` is the case of that layer."""
    layer = whole.params["layer"]
    taps = layer_taps(model.config, layer)
    parents = {parent for tap in taps for parent in tap.parents}
    values = _values_around(model, whole, seed)
    return Draft(
        id=f"subgraph/{model.id}/{name}",
        kind="subgraph",
        level="L1",
        topic="layer",
        model=model.id,
        purpose=f"Each node of layer {layer} ({name}) on given values of what it is computed from.",
        # Each is judged alone; a routing tap keeps its parent, whose margins say which choices rounding may change.
        taps=[tap if tap.cls == "routing" else replace(tap, parents=()) for tap in taps],
        inputs={POSITIONS: values[POSITIONS], **{name: values[name] for name in sorted(parents)}},
        params={"layer": layer},
    )


def _values_around(model: Model, whole: Draft, seed: int) -> dict[str, Array]:
    """Taps around the whole layer: its inputs, and the taps that it computes from them, in bfloat16."""
    layer, given = whole.params["layer"], subgraph(whole.kind, whole.params, whole.inputs)
    values = {name: _bf16(x) for name, x in answers.layer(_decoder(model.id), given).items()}
    values |= {POSITIONS: given.positions, output_of(layer): given.hidden}
    if given.donated is not None:
        donor = f"model.layers.{model.config.kv_donor(layer)}.self_attn."
        values |= {f"{donor}k_rope": given.donated[0], f"{donor}v_norm": given.donated[1]}
    if model.config.hidden_size_per_layer_input:
        values["model.ple"] = _bf16(_golden(model.id, seed)["model.ple"])
    return values


def attention_draft(model: Model, name: str, layer: int, seed: int) -> Draft:
    """A layer's attention on its normalised input."""
    x = _golden(model.id, seed)[f"model.layers.{layer}.input_layernorm"]
    prefix = f"model.layers.{layer}.self_attn."
    return Draft(
        id=f"attention/{model.id}/{name}",
        kind="attention",
        level="L1",
        topic="kv-sharing" if model.config.is_kv_shared(layer) else "attention",
        model=model.id,
        purpose=f"The attention of layer {layer} ({name}) on given normalised hidden states.",
        taps=closed([tap for tap in layer_taps(model.config, layer) if tap.name.startswith(prefix)]),
        inputs={"x": _bf16(x), **_positions_and_donor(model, layer, seed)},
        params={"layer": layer},
    )


def inner_taps(config: TextConfig, layer: int) -> list[Tap]:
    """The taps of a layer, their parents restricted to the layer."""
    return closed(layer_taps(config, layer))


@functools.lru_cache(maxsize=1)
def _decoder(model_id: str) -> Decoder:
    config = MODELS[model_id].config
    return Decoder(config, weights.weights(model_id, config, mini=True))


@functools.lru_cache(maxsize=2)
def _golden(model_id: str, seed: int) -> dict[str, Array]:
    model = MODELS[model_id]
    ids = golden_ids(model, seed)[:, : model.config.sliding_window + 2]
    return plans.run(_decoder(model_id), ids, np.arange(ids.shape[1], dtype=np.int32)[None])


def _hidden(model: Model, layer: int, seed: int) -> Array:
    """The hidden state that enters a layer; in a mixture of experts, rows whose experts rounding cannot change."""
    entering = _bf16(_golden(model.id, seed)[output_of(layer)])
    if not model.config.enable_moe_block:
        return entering
    decoder = _decoder(model.id)
    router = f"model.layers.{layer}.router."

    def margin_of_last(rows: Array) -> float:
        inputs = {"hidden": rows, "positions": np.arange(rows.shape[1], dtype=np.int32)[None]}
        taps = answers.layer(decoder, subgraph("layer", {"layer": layer}, inputs))
        return float(routing_margins(taps[router + "proj"], taps[router + "combine"])[0, -1])

    others = (_bf16(_golden(model.id, 1000 * (seed + 1) + draw)[output_of(layer)])[0] for draw in range(20))
    return wide_rows(
        itertools.chain(entering[0], itertools.chain.from_iterable(others)), entering.shape[1], margin_of_last
    )


def _positions_and_donor(model: Model, layer: int, seed: int) -> dict[str, Array]:
    golden = _golden(model.id, seed)
    tensors: dict[str, Array] = {"positions": np.arange(golden["logits"].shape[1], dtype=np.int32)[None]}
    if model.config.is_kv_shared(layer):
        donor = f"model.layers.{model.config.kv_donor(layer)}.self_attn."
        tensors["k"], tensors["v"] = _bf16(golden[donor + "k_rope"]), _bf16(golden[donor + "v_norm"])
    return tensors


def _ple_slice(model: Model, layer: int, seed: int) -> dict[str, Array]:
    if not model.config.hidden_size_per_layer_input:
        return {}
    return {"ple": _bf16(_golden(model.id, seed)["model.ple"][:, :, layer])}


def _bf16(x: Array) -> Array:
    return weights.bf16(x).astype(np.float32)
