"""The implementations that can be named with `--impl`, each imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from conformance.adapters.base import Adapter


class AdapterUnavailable(Exception):
    """An implementation cannot be driven here; the message is one line with the cure."""


class BadOption(Exception):
    """An option names what does not exist; the message is one line with what does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    module: str
    factory: str
    cure: str


_TORCH = "pip install 'gemma4-conformance[reference]'"
_MLX = "pip install 'mlx[cpu]' on Linux, or mlx on a Mac"

ADAPTERS: Mapping[str, _Entry] = {
    "mlx_impl": _Entry(module="mlx_impl", factory="MlxImplAdapter", cure=_MLX),
    "mlx_lm": _Entry(module="mlx_lm", factory="MlxLmAdapter", cure="pip install 'gemma4-conformance[mlx-lm]'"),
    "transformers": _Entry(module="transformers", factory="TransformersAdapter", cure=_TORCH),
    "transformers_sdpa": _Entry(module="transformers", factory="TransformersSdpaAdapter", cure=_TORCH),
    "oracle": _Entry(module="oracle", factory="OracleAdapter", cure="reinstall gemma4-conformance"),
}


def create(name: str) -> Adapter:
    """The adapter of an implementation; BadOption when it is unknown, AdapterUnavailable when packages are missing."""
    if name not in ADAPTERS:
        raise BadOption(f"--impl: got {name!r}, expected one of {', '.join(ADAPTERS)}")
    entry = ADAPTERS[name]
    try:
        module = importlib.import_module(f"conformance.adapters.{entry.module}")
    except ImportError as error:
        raise AdapterUnavailable(f"--impl {name}: {error}; {entry.cure}") from None
    adapter: Adapter = getattr(module, entry.factory)()
    return adapter
