"""The source of a streaming pass's weights: the rule, or the user's own checkpoint."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemma4_contract import FixtureError, ModelCard, checkpoint
from gemma4_contract.files import sha256
from gemma4_contract.full_size import own_config, own_id
from reference import weights
from reference.config import TextConfig
from reference.models import Model
from reference.streaming.matrix import Q
from reference.streaming.weights import by_rule, of_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model whose weights are made or read as they are used."""

    card: ModelCard
    config_json: Mapping[str, Any]
    config: TextConfig
    weights: Callable[[np.dtype[Any]], dict[str, Any]]
    """dtype -> weights, as in `streaming.weights`."""
    option: str
    """The options of a command that name it."""
    fingerprint: str
    """Identifies the weights: a pass over other weights is not continued."""

    @property
    def id(self) -> str:
        """The model's id."""
        return self.card.id


def rule(model: Model, q: Q = weights.q) -> Source:
    """A model whose weights are formulas, their numbers from `q`."""
    return Source(
        card=ModelCard(
            id=model.id,
            member=model.member.repository,
            purpose=model.purpose,
            overrides=dict(model.overrides),
            redundant_shared_kv=False,
            acceptance={},
            **_size(model.config),
        ),
        config_json=model.config_json,
        config=model.config,
        weights=functools.partial(by_rule, model, q=q),
        option=f"--model {model.id}",
        fingerprint=model.id,
    )


def from_checkpoint(directory: Path) -> Source:
    """A checkpoint, whose id is the folder's name; FixtureError if it is not whole."""
    raw = own_config(directory)
    expected, cure = "the configuration of a Gemma 4 text decoder", "name the folder of a whole checkpoint"
    try:
        config = TextConfig.from_dict(raw)
        expected = "its tensors"
        read = functools.partial(of_checkpoint, directory, config)
        read(np.dtype(np.float64))  # checks that all tensors exist; no matrix is read yet
    except (ValueError, KeyError, TypeError) as error:
        raise FixtureError(directory, got=str(error), expected=expected, cure=cure) from None
    return Source(
        card=ModelCard(
            id=own_id(directory),
            member=directory.resolve().name,
            purpose="A checkpoint of the user's own.",
            overrides={},
            weights_rule=None,
            redundant_shared_kv=False,
            acceptance={},
            **_size(config),
        ),
        config_json=raw,
        config=config,
        weights=read,
        option=f"--checkpoint {directory.resolve().name}",
        fingerprint=_fingerprint(directory),
    )


def _fingerprint(directory: Path) -> str:
    """A digest of the files' names, sizes and times."""
    seen = ((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in checkpoint.parts(directory))
    return sha256(repr(list(seen)).encode())


def _size(config: TextConfig) -> dict[str, int]:
    shapes = weights.tensor_shapes(config).values()
    return {"tensors": len(shapes), "parameters": sum(math.prod(shape) for shape in shapes)}
