"""From a model's directory to a `Decoder`: loading is strict, so that no decoder runs with a weight it did not load."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from mlx_impl.checkpoint import files as checkpoint
from mlx_impl.checkpoint import names, split_experts
from mlx_impl.checkpoint.files import Stored
from mlx_impl.checkpoint.mapped import MappedTable
from mlx_impl.checkpoint.quantize import (
    PARTS,
    Format,
    packed_shapes,
    parse_quantization,
    quantized_modules,
    replace_modules,
)
from mlx_impl.checkpoint.streamed import StreamedLayer
from mlx_impl.errors import MlxImplError, problem, shown
from mlx_impl.model.config import Config
from mlx_impl.model.config_fields import hint
from mlx_impl.model.config_parse import parse_config
from mlx_impl.model.decoder import Decoder

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
STORED_DTYPES = ("F32", "BF16", "F16")
PACKED_DTYPES = ("U32",)
PLE = ("resident", "mapped")
LAYERS = ("resident", "streamed")
PLE_TABLE = "model.embed_tokens_per_layer"
_FOREIGN = "this checkpoint does not fit its config.json"


def load_config(model_dir: str | Path) -> Config:
    """Read `config.json`. Raises MlxImplError that names the file."""
    path = Path(model_dir) / "config.json"
    return _config_of(path, checkpoint.read_json(path))


def load(
    model_dir: str | Path,
    dtype: str = "float32",
    ple: Literal["resident", "mapped"] = "resident",
    layers: Literal["resident", "streamed"] = "resident",
) -> Decoder:
    """Read an ordinary checkpoint (`config.json`, safetensors), plain or quantised by MLX.

    Floats are converted to `dtype`; bf16 and f16 widen to float32 exactly. With ple="mapped" the table of per-layer
    embeddings stays in its file, and only the rows of the tokens in use are read. With layers="streamed" every pass
    reads the layers again, one at a time. All results are the same. Raises MlxImplError, naming file and tensor, for a
    tensor that is missing, unknown, broken or of the wrong shape. A streamed layer whose file cannot be read raises
    RuntimeError during the pass.
    """
    for name, got, known in (("dtype", dtype, tuple(DTYPES)), ("ple", ple, PLE), ("layers", layers, LAYERS)):
        if got not in known:
            raise problem(name, got=shown(got), expected=" or ".join(known), cure="choose one of them")
    folder = Path(model_dir)
    path = folder / "config.json"
    raw = checkpoint.read_json(path)
    config = _config_of(path, raw)
    assert isinstance(raw, dict)  # `_config_of` has refused anything else

    decoder = Decoder(config)
    streamed = [StreamedLayer(config, i) for i in range(config.num_hidden_layers)] if layers == "streamed" else []
    if streamed:
        decoder.model.layers = list(streamed)
    stored = text_tensors(checkpoint.inventory(folder), config)
    formats = prepare_decoder(decoder, stored, raw, path)
    if ple == "mapped" and config.hidden_size_per_layer_input > 0:
        parts = {part: stored.pop(f"{PLE_TABLE}.{part}")[1] for part in PARTS if f"{PLE_TABLE}.{part}" in stored}
        decoder.model.embed_tokens_per_layer = MappedTable(parts, DTYPES[dtype], formats.get(PLE_TABLE))
    for i, layer in enumerate(streamed):
        prefix = f"model.layers.{i}."
        own = {name: stored.pop(name) for name in list(stored) if name.startswith(prefix)}
        layer.read_by(partial(_read, own, DTYPES[dtype], prefix))
    weights = _read(stored, DTYPES[dtype])
    decoder.load_weights(list(weights.items()), strict=not streamed)  # `prepare_decoder` has checked all names
    try:
        mx.eval(list(weights.values()))  # now, so that a file that fails to read fails here
    except RuntimeError as error:
        raise problem(str(model_dir), got=shown(str(error)), expected="readable weights", cure="check disk") from None
    return decoder


def held_bytes(model_dir: str | Path, dtype: str = "float32") -> int:
    """Bytes of memory that a decoder takes after `load`. Raises MlxImplError for a checkpoint that cannot be read."""
    stored = text_tensors(checkpoint.inventory(Path(model_dir)), load_config(model_dir))
    packed, width = mx.uint32.size, DTYPES[dtype].size
    return sum(
        math.prod(entry.shape) * (packed if entry.dtype in PACKED_DTYPES else width) for _, entry in stored.values()
    )


def _read(stored: Mapping[str, tuple[str, Stored]], dtype: mx.Dtype, prefix: str = "") -> dict[str, mx.array]:
    """Arrays that are read when they are evaluated, by the decoder's parameter names without their common prefix."""
    arrays = checkpoint.read_tensors(entry.file for _, entry in stored.values())
    weights = {ours: _as_dtype(arrays[theirs], dtype) for ours, (theirs, _) in stored.items()}
    return {name.removeprefix(prefix): value for name, value in split_experts.fused(weights).items()}


def _as_dtype(tensor: mx.array, dtype: mx.Dtype) -> mx.array:
    """The tensor in another float dtype; packed integers are not changed."""
    return tensor if tensor.dtype == mx.uint32 else tensor.astype(dtype)


def text_tensors(inventory: dict[str, Stored], config: Config) -> dict[str, tuple[str, Stored]]:
    """Our name -> (the checkpoint's name, its header entry), without the tensors that `names` leaves out."""
    stored: dict[str, tuple[str, Stored]] = {}
    for theirs, entry in inventory.items():
        if names.is_left_out(theirs):
            continue
        ours = names.our_name(theirs)
        if names.is_redundant(ours, config):
            continue
        if ours in stored:
            got = f"both {stored[ours][0]} and {theirs}"
            raise problem(str(entry.file), got=got, expected=f"one tensor for {ours}", cure="remove one of them")
        stored[ours] = (theirs, entry)
    return stored


def prepare_decoder(
    decoder: Decoder, stored: Mapping[str, tuple[str, Stored]], raw: Mapping[str, Any], path: Path
) -> dict[str, Format]:
    """Check the tensors against the decoder and replace its modules that are quantised; return the modules' formats.

    `raw` is the content of the config.json at `path`. Raises MlxImplError for tensors that are not the decoder's.
    """
    modules = quantized_modules(stored, parse_quantization(raw, str(path)), str(path))
    check_tensors(stored, decoder, modules, path.parent)
    formats = split_experts.fused_formats(modules)
    replace_modules(decoder, formats)
    return formats


def check_tensors(
    stored: Mapping[str, tuple[str, Stored]], decoder: Decoder, modules: Mapping[str, Format], model_dir: Path
) -> None:
    """Raise MlxImplError unless `stored` holds exactly the decoder's parameters, with their shapes and dtypes.

    Experts may be fused or split, in the same way in all layers; `modules` are the quantised modules.
    """
    shapes = {name: tuple(value.shape) for name, value in decoder.tensors().items()}
    if split_experts.is_split(stored):
        shapes = split_experts.split_shapes(shapes)
    shapes = packed_shapes(shapes, modules)
    for ours, (theirs, entry) in stored.items():
        where = f"{entry.file}: {theirs}"
        packed = ours.removesuffix(".weight") in modules
        dtypes = PACKED_DTYPES if packed else STORED_DTYPES
        if ours not in shapes:
            raise problem(
                where, got="a tensor", expected="no tensor of this name", cure=f"{_FOREIGN}; {hint(ours, shapes)}"
            )
        if entry.shape != shapes[ours]:
            raise problem(where, got=f"shape {entry.shape}", expected=f"{shapes[ours]}", cure=_FOREIGN)
        if entry.dtype not in dtypes:
            raise problem(where, got=entry.dtype, expected=" or ".join(dtypes), cure="convert it")
    for ours, shape in shapes.items():
        if ours not in stored:
            raise problem(f"{model_dir}: {ours}", got="no such tensor", expected=f"shape {shape}", cure=_FOREIGN)


def _config_of(path: Path, raw: object) -> Config:
    if not isinstance(raw, dict):
        raise problem(str(path), got=shown(raw), expected="a JSON object", cure="download it again")
    try:
        return parse_config(raw)
    except MlxImplError as error:
        raise MlxImplError(f"{path}: {error}") from None
