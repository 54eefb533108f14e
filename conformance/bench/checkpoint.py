"""The checkpoint that a benchmark runs on: the user's, or a member of the family at full size with weights by rule."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import platformdirs

from conformance.bench.rule_model import tensors
from reference.config import TextConfig
from reference.family import FAMILY
from reference.models import MODELS

GROUP_SIZE = 64
SIZES: dict[str, dict[str, Any]] = {
    **{f"{name}-full": dict(member.text_config) for name, member in FAMILY.items()},
    "e2b-mini": dict(MODELS["e2b-mini"].text_config),
}
"""Models that can be made: name -> text configuration."""


def by_rule(model: str, bits: int | None) -> Path:
    """The folder of one of SIZES, plain in bfloat16 or quantised to `bits`; made once and kept in the cache.

    An interrupted run leaves nothing: the folder is there when it is whole.
    """
    cache = Path(os.environ.get("GEMMA4_CACHE") or platformdirs.user_cache_dir("gemma4-conformance"))
    folder = cache / "bench" / (f"{model}-{bits}bit" if bits else model)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
            made = Path(unfinished) / "made"
            made.mkdir()
            write(made, model, SIZES[model], bits)
            made.rename(folder)
    return folder


def write(folder: Path, model_id: str, text_config: dict[str, Any], bits: int | None) -> None:
    """An ordinary checkpoint of the text part alone, which mlx_impl and mlx-lm both read."""
    config: dict[str, Any] = dict(text_config)
    stored: dict[str, mx.array] = {}
    for name, weight in tensors(model_id, TextConfig.from_dict(text_config)):
        if bits and weight.ndim == 2:
            parts = mx.quantize(weight, group_size=GROUP_SIZE, bits=bits)
            module = name.removesuffix(".weight")
            stored |= {f"{module}.{part}": x for part, x in zip(("weight", "scales", "biases"), parts, strict=True)}
        else:
            stored[name] = weight
        mx.eval(stored)  # tensor by tensor: of a quantised one the plain numbers are let go
    if bits:
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": bits, "mode": "affine"}
    mx.save_safetensors(str(folder / "model.safetensors"), stored, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
