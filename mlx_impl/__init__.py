"""Gemma 4's text decoder in plain MLX: every file reads as the specification of one part.

Shape letters: B batch, L query length, S key length, D hidden, H query heads, K key/value heads, E head dim,
P per-layer width, N layers, F feed-forward width, V vocabulary, X experts.
"""

from mlx_impl.config import Config
from mlx_impl.config_parse import parse_config
from mlx_impl.errors import MlxImplError

try:
    from mlx_impl.decoder import Decoder
    from mlx_impl.load import load, load_config
except ModuleNotFoundError as error:  # where there is no mlx, prompts and the tokenizer still work
    if error.name not in ("mlx", "mlx.core"):
        raise

__version__ = "0.1.0"
__all__ = ["Config", "Decoder", "MlxImplError", "load", "load_config", "parse_config"]
