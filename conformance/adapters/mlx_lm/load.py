"""Load an ordinary Gemma 4 checkpoint into mlx-lm's `gemma4_text.Model`, whatever prefix its tensors carry.

`mlx_lm.models.gemma4` would take `vocab_size` from the top level of config.json (default 262144) and write it over
`text_config`'s, so the text model is built from `text_config` directly; sanitizing and strict loading are mlx-lm's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models import gemma4_text

from gemma4_contract import checkpoint


def model_args(config: Mapping[str, Any]) -> gemma4_text.ModelArgs:
    """mlx-lm's own reading of a configuration, nested or flat."""
    from_dict: Any = gemma4_text.ModelArgs.from_dict
    args: gemma4_text.ModelArgs = from_dict(checkpoint.text_part(config))
    return args


def load_model(directory: Path, dtype: mx.Dtype) -> Any:
    """A `gemma4_text.Model` with the weights of the checkpoint in `directory`, cast to `dtype`.

    FixtureError without config.json or weights, ValueError for tensors missing, surplus or misshapen.
    """
    args = model_args(checkpoint.read_config(directory))
    weights: dict[str, mx.array] = {}
    for file in checkpoint.files(directory):
        loaded = mx.load(str(file))
        assert isinstance(loaded, dict)
        weights |= {text: tensor for name, tensor in loaded.items() if (text := _text_name(name)) is not None}
    model: Any = gemma4_text.Model(args)
    sanitized = model.sanitize(weights)
    model.load_weights([(name, tensor.astype(dtype)) for name, tensor in sanitized.items()], strict=True)
    model.eval()
    mx.eval(model.parameters())
    return model


def _text_name(name: str) -> str | None:
    """A tensor's name in mlx-lm's text model; mlx-lm itself handles the head."""
    return name if name == "lm_head.weight" else checkpoint.text_name(name)
