"""The weights of a model for a streaming pass, by their names in the state dict."""

from __future__ import annotations

from typing import Any

import numpy as np

from reference import weights
from reference.models import Model
from reference.streaming.matrix import RuleMatrix


def by_rule(model: Model, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Vectors as arrays, matrices and stacks as formulas (`Matrix`)."""
    config, made = model.config, dict[str, Any]()
    for name, shape in weights.tensor_shapes(config).items():
        if len(shape) == 1:
            made[name] = weights.tensor(model.id, name, shape, config, mini=False)
        else:
            fan_in = weights.fan_in(name, shape, config)
            made[name] = RuleMatrix(f"{model.id}/{name}", shape, fan_in, dtype)
    return made
