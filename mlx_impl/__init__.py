"""Gemma 4's text decoder in plain MLX; every file can be read as the specification of one part.

Shape letters: B batch, L query length, S key length, D hidden, H query heads, K key/value heads, E head dim,
P per-layer width, N layers, F feed-forward width, V vocabulary, X experts.
"""

from mlx_impl.errors import MlxImplError
from mlx_impl.model.config import Config
from mlx_impl.model.config_parse import parse_config

try:
    from mlx_impl.checkpoint.load import load, load_config
    from mlx_impl.model.decoder import Decoder
except ModuleNotFoundError as error:  # without mlx, prompts and the tokenizer still work
    if error.name not in ("mlx", "mlx.core"):
        raise

__version__ = "0.1.0"
__all__ = ["Config", "Decoder", "MlxImplError", "load", "load_config", "parse_config"]
