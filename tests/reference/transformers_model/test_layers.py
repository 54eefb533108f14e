"""A single layer of transformers on given inputs repeats its taps of a whole pass."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gemma4_contract.tensors import Array

pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma4_contract.subgraph import Subgraph, subgraph
from tests.support.transformers_models import (
    LENGTH,
    POSITIONS,
    config_of,
    each_kind,
    error,
    forward,
    model_of,
    owner_of,
    truth,
    worst,
)


def layer_of(kind: str, index: int, taps: Mapping[str, Array]) -> Subgraph:
    """A whole layer as a question, out of a forward's own taps."""
    owner = owner_of(config_of(kind), index)
    keys, values = (taps[f"model.layers.{owner}.self_attn.{name}"] for name in ("k_rope", "v_norm"))
    return Subgraph(
        layer=index,
        positions=POSITIONS,
        hidden=taps["model.embed_tokens"] if index == 0 else taps[f"model.layers.{index - 1}.output"],
        given={},
        donated=None if owner == index else (keys, values),
        slice_of_ple=taps["model.ple"][:, :, index] if "model.ple" in taps else None,
    )


@each_kind
@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(("dtype", "attention"), [("float64", "eager"), ("bfloat16", "eager"), ("float32", "sdpa")])
def test_a_layer_fed_from_a_forward_repeats_its_taps(kind: str, index: int, dtype: str, attention: str) -> None:
    lifted = dtype == "float64"
    taps = forward(kind, dtype, attention, lifted=lifted)
    wanted = {name: tap for name, tap in taps.items() if name.startswith(f"model.layers.{index}.")}
    got = model_of(kind, dtype, attention, lifted=lifted).run_subgraph(layer_of(kind, index, taps))
    assert got.keys() == wanted.keys()
    assert worst(got, wanted) < {"float64": 1e-13, "bfloat16": 1e-2, "float32": 1e-5}[dtype]


@each_kind
@pytest.mark.parametrize("index", range(5))
def test_attention_fed_from_a_forward_repeats_its_taps(kind: str, index: int) -> None:
    taps = forward(kind, "float64", "eager", lifted=True)
    prefix = f"model.layers.{index}."
    wanted = {name: tap for name, tap in taps.items() if name.startswith(f"{prefix}self_attn.")}
    whole = layer_of(kind, index, taps)
    x = f"{prefix}input_layernorm"
    inputs = {"x": taps[x], "positions": POSITIONS}
    if whole.donated is not None:
        inputs |= dict(zip("kv", whole.donated, strict=True))
    alone = subgraph("attention", {"layer": index}, inputs)
    got = model_of(kind, lifted=True).run_subgraph(alone)
    assert {name for name in got if name.startswith(f"{prefix}self_attn.")} == wanted.keys()
    assert worst({name: got[name] for name in wanted}, wanted) < 1e-13


@pytest.mark.parametrize("index", [0, 1])
def test_rope_of_a_late_position_is_exact_only_when_lifted(index: int) -> None:
    """Scores depend on distances alone, so shifting all positions must not move the context."""
    early = layer_of("ple", index, truth("ple"))
    late = dataclasses.replace(early, positions=POSITIONS + 100_000)
    name = f"model.layers.{index}.self_attn.context"
    shifts = [
        error(model.run_subgraph(late)[name], model.run_subgraph(early)[name])
        for model in (model_of("ple", lifted=True), model_of("ple"))
    ]
    assert shifts[0] < 1e-9
    assert shifts[1] > 1e-5


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (0, {"slice_of_ple": None}, "ple"),
        (0, {"slice_of_ple": np.zeros((2, LENGTH, 3))}, "ple"),
        (0, {"hidden": np.zeros((2, LENGTH, 95))}, "hidden"),
        (0, {"positions": POSITIONS[:, :-1]}, "positions"),
        (0, {"donated": (np.zeros((2, 1, LENGTH, 16)),) * 2}, "shared_kv"),
        (3, {"donated": None}, "shared_kv"),
        (3, {"donated": (np.zeros((2, 1, LENGTH, 32)),) * 2}, "shared_kv keys"),
    ],
    ids=["no-ple", "ple-width", "width", "positions", "superfluous", "no-donor", "head-dim"],
)
def test_an_argument_that_does_not_fit_the_layer_is_refused(index: int, changes: dict[str, Any], message: str) -> None:
    question = dataclasses.replace(layer_of("ple", index, truth("ple")), **changes)
    with pytest.raises(ValueError, match=message):
        model_of("ple", lifted=True).run_subgraph(question)
