"""Forward and layer requests of the synthetic checkpoints, and the error of an answer. B batch, L query length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from conformance.adapters.base import Request
from gemma4_contract import Plan
from gemma4_contract.tensors import Array
from tests.support.adapter_checkpoints import LENGTH, positions, tap_shapes, text_config, token_ids


def request(
    directory: Path, kind: str, plan: Plan, profile: str = "f32", want: tuple[str, ...] | None = None
) -> Request:
    """A forward request of a checkpoint of this kind: one row, or the padded batch that the plan asks for."""
    pads = tuple(plan.left_pad or (0,))
    ids = np.stack([np.concatenate([np.zeros(pad, np.int32), token_ids()[0, : LENGTH - pad]]) for pad in pads])
    return Request(
        case=f"forward/{kind}",
        kind="forward",
        profile=profile,
        model_dir=directory,
        plan=plan,
        inputs={"ids": ids.astype(np.int32), "positions": positions(len(pads), pads)},
        want=tuple(tap_shapes(kind)) if want is None else want,
    )


def layer_requests(directory: Path, kind: str, taps: Mapping[str, Array], profile: str = "f32") -> list[Request]:
    """One `layer` request for each layer, its inputs taken from the taps of a forward run without a cache."""
    config = text_config(kind)
    types, count = config["layer_types"], config["num_hidden_layers"]
    own = count - config["num_kv_shared_layers"]
    requests = []
    for i, layer_type in enumerate(types):
        hidden = taps["model.embed_tokens"] if i == 0 else taps[f"model.layers.{i - 1}.output"]
        inputs = {"hidden": hidden, "positions": positions(1)}
        if "model.ple" in taps:
            inputs["ple"] = taps["model.ple"][:, :, i]
        if i >= own:
            donor = max(j for j in range(own) if types[j] == layer_type)
            inputs |= {k: taps[f"model.layers.{donor}.self_attn.{v}"] for k, v in (("k", "k_rope"), ("v", "v_norm"))}
        prefix = f"model.layers.{i}."
        want = tuple(tap for tap in tap_shapes(kind) if tap.startswith(prefix))
        requests.append(
            Request(
                case=f"layer/{kind}/{i}",
                kind="layer",
                profile=profile,
                model_dir=directory,
                params={"layer": i},
                inputs=inputs,
                want=want,
            )
        )
    return requests


def error(got: Array, expected: Array) -> float:
    """Largest difference over the largest expected magnitude; infinity for NaN or another shape."""
    if got.shape != expected.shape or not np.isfinite(got.astype(np.float64)).all():
        return float("inf")
    return float(np.abs(got.astype(np.float64) - expected).max() / np.abs(expected.astype(np.float64)).max())


def row_error(tap: str, got: Array, single: Array, pads: list[int]) -> float:
    """The same for a padded batch, each row's real tokens against the rows of a batch of one."""
    axis = 2 if tap.endswith(("q_norm", "q_rope", "k_norm", "k_rope", "v_norm")) else 1
    got, single = np.moveaxis(got, axis, 1), np.moveaxis(single, axis, 1)
    return max(error(got[row, pad:], single[0, : LENGTH - pad]) for row, pad in enumerate(pads))
