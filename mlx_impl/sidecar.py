"""This decoder inside the released mlx-lm: `load`, `generate`, `stream_generate` and the server use the fast path.

A checkpoint for mlx-lm may bring its own model: `model_file` in config.json names a module with `Model` and
`ModelArgs`. Here that module is `sidecar_model.py`. This file needs mlx-lm.

    model, tokenizer = mlx_impl.sidecar.load(folder)              # what mlx_lm.load returns
    mlx_impl.sidecar.link(folder, other)                          # a folder for mlx-lm's commands
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
from mlx_lm.models import cache as mlx_lm_cache

from mlx_impl.checkpoint import files as checkpoint
from mlx_impl.checkpoint import split_experts
from mlx_impl.checkpoint.files import Stored
from mlx_impl.checkpoint.load import load_config, prepare_decoder, text_tensors
from mlx_impl.errors import problem
from mlx_impl.fast.decoder import FusedDecoder
from mlx_impl.fast.static_cache import StaticCache
from mlx_impl.model.config import Config
from mlx_impl.model.config_parse import parse_config
from mlx_impl.model.decoder import Decoder
from mlx_impl.model.params import Block

MODEL_FILE = Path(__file__).with_name("sidecar_model.py")
_TEXT = "text."
_DTYPES = {mx.float32: "F32", mx.bfloat16: "BF16", mx.float16: "F16", mx.uint32: "U32"}


def load(model_dir: str | Path, **options: Any) -> Any:
    """`mlx_lm.load` with this decoder: (model, tokenizer). `options` are those of `mlx_lm.load`, such as `lazy`."""
    load_config(model_dir)  # refuses a folder without a Gemma 4 model
    model_config = options.pop("model_config", {}) | {"model_file": str(MODEL_FILE)}
    return mlx_lm.load(str(model_dir), model_config=model_config, trust_remote_code=True, **options)


def link(model_dir: str | Path, out: str | Path) -> None:
    """Make the folder `out` of links to a checkpoint's files, which mlx-lm's commands and server run with this decoder.

    They need `--trust-remote-code`, because the folder holds a module that they import. Raises MlxImplError if `out`
    exists.
    """
    source, target = Path(model_dir).absolute(), Path(out)
    load_config(source)
    raw = checkpoint.read_json(source / "config.json")
    assert isinstance(raw, dict)  # `load_config` has refused anything else
    if target.exists():
        raise problem(str(out), got="a path that exists", expected="a new one", cure="choose another")
    try:
        with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=f".{target.name}-") as unfinished:
            made = Path(unfinished) / "made"
            made.mkdir()
            for file in source.iterdir():
                if file.name != "config.json":
                    (made / file.name).symlink_to(file)
            shutil.copy(MODEL_FILE, made / MODEL_FILE.name)
            (made / "config.json").write_text(json.dumps(raw | {"model_file": MODEL_FILE.name}, indent=2))
            os.rename(made, target)
    except OSError as error:
        got = error.strerror or str(error)
        raise problem(str(out), got=got, expected="a place to write to", cure="choose another") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArgs:
    """The class that mlx-lm reads a configuration into."""

    raw: dict[str, Any]
    config: Config

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> ModelArgs:
        """The arguments of a config.json. Raises MlxImplError for a configuration that is not Gemma 4's."""
        return cls(raw=params, config=parse_config(params))


class SidecarCache(StaticCache, mlx_lm_cache._BaseCache):
    """All keys and values of one layer, of sliding layers too.

    mlx-lm goes back in a cache for speculative decoding and for prompts with a common beginning, and does not check
    that the cache did so. A cache that keeps everything can always go back; it takes a few kilobytes per token.
    """

    def __init__(self) -> None:
        super().__init__(None)

    @property
    def state(self) -> mx.array | list[mx.array]:
        """The keys and values [1, 2K, S, E]; an empty list before the first token."""
        return [] if self.buffer is None else self.buffer[:, :, : self.offset]

    @state.setter
    def state(self, value: mx.array) -> None:
        self.window, self.buffer, self.offset = None, value, value.shape[2]

    def is_trimmable(self) -> bool:
        """True: a cache can always go back."""
        return True

    def trim(self, count: int) -> int:
        """Forget the last `count` tokens, or all if there are fewer; return how many."""
        count = min(count, self.offset)
        self.offset -= count
        return count

    def size(self) -> int:
        """How many tokens are held."""
        return self.offset

    def empty(self) -> bool:
        """Whether no token is held."""
        return self.offset == 0

    @property
    def nbytes(self) -> int:
        """How many bytes are held."""
        return sum(array.nbytes for array in self.arrays)


# mlx-lm looks here for the class of a prompt cache that it reads from a file.
setattr(mlx_lm_cache, SidecarCache.__name__, SidecarCache)


class Model(Block):
    """The class that mlx-lm calls as a model: this decoder, on its fast path if there are caches."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.args = args
        self.model_type = args.raw["model_type"]
        self.text = Decoder(args.config)
        self._fused: FusedDecoder | None = None

    def __call__(self, inputs: mx.array, cache: list[SidecarCache] | None = None) -> mx.array:
        """ids [B, L] -> logits [B, L, V]; with a cache B must be 1."""
        if cache is None:
            return self.text(inputs)
        if self._fused is None:  # only now, because the weights are loaded
            self._fused = FusedDecoder(self.text)
        return self._fused(inputs, cache)

    @property
    def layers(self) -> list[Any]:
        """One layer for each cache: by their number mlx-lm separates the caches of a model from those of its draft."""
        return [self.text.model.layers[i] for i in self.args.config.own_kv_layers]

    def make_cache(self) -> list[SidecarCache]:
        """Empty caches, one for each layer with keys of its own."""
        return [SidecarCache() for _ in self.args.config.own_kv_layers]

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """A checkpoint's tensors by the names of this model, whose quantised modules are replaced.

        Raises MlxImplError for tensors that are missing, unknown or of the wrong shape.
        """
        file = Path(self.model_type)
        inventory = {
            name: Stored(file=file, dtype=_DTYPES.get(x.dtype, str(x.dtype)), shape=tuple(x.shape), offset=0)
            for name, x in weights.items()
        }
        stored = text_tensors(inventory, self.args.config)
        prepare_decoder(self.text, stored, self.args.raw, file / "config.json")
        ours = split_experts.fused({name: weights[theirs] for name, (theirs, _) in stored.items()})
        return {_TEXT + name: value for name, value in ours.items()}
