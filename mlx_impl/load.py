"""From a model's directory to a `Decoder`: strict, so that nothing runs on a weight that was never loaded."""

from pathlib import Path

import mlx.core as mx

from mlx_impl import checkpoint, names, split_experts
from mlx_impl.checkpoint import Stored
from mlx_impl.config import Config
from mlx_impl.config_fields import hint
from mlx_impl.config_parse import parse_config
from mlx_impl.decoder import Decoder
from mlx_impl.errors import MlxImplError, problem, shown

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
STORED_DTYPES = ("F32", "BF16", "F16")
_FOREIGN = "this checkpoint does not fit its config.json"


def load_config(model_dir: str | Path) -> Config:
    """Read `config.json`. Raises MlxImplError that names the file."""
    path = Path(model_dir) / "config.json"
    return _config_of(path, checkpoint.read_json(path))


def load(model_dir: str | Path, dtype: str = "float32") -> Decoder:
    """Read an ordinary checkpoint (`config.json`, safetensors) with every parameter in `dtype`.

    bf16 and f16 widen to float32 exactly. Raises MlxImplError for anything missing, left over, of the wrong shape
    or broken, naming file and tensor; a quantised checkpoint is refused.
    """
    if dtype not in DTYPES:
        raise problem("dtype", got=shown(dtype), expected=" or ".join(DTYPES), cure="choose one of them")
    path = Path(model_dir) / "config.json"
    raw = checkpoint.read_json(path)
    config = _config_of(path, raw)
    if isinstance(raw, dict) and (raw.get("quantization") or raw.get("quantization_config")):
        raise problem(
            str(path), got="a quantised checkpoint", expected="bf16, f16 or f32 weights", cure="dequantise it"
        )

    decoder = Decoder(config)
    stored = wanted(checkpoint.inventory(Path(model_dir)), config)
    check(stored, decoder, Path(model_dir))
    arrays = checkpoint.read_tensors(entry.file for _, entry in stored.values())
    weights = {ours: arrays[theirs].astype(DTYPES[dtype]) for ours, (theirs, _) in stored.items()}
    decoder.load_weights(list(split_experts.fused(weights).items()), strict=True)
    try:
        mx.eval(decoder.tensors())  # now, so that a file that fails to read fails here
    except RuntimeError as error:
        raise problem(str(model_dir), got=shown(str(error)), expected="readable weights", cure="check disk") from None
    return decoder


def wanted(inventory: dict[str, Stored], config: Config) -> dict[str, tuple[str, Stored]]:
    """Our name -> (the checkpoint's name, its header entry), without what `names` leaves out."""
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


def check(stored: dict[str, tuple[str, Stored]], decoder: Decoder, model_dir: Path) -> None:
    """Raise MlxImplError unless `stored` holds exactly the decoder's parameters, in shape and a float dtype.

    Experts may be fused or split, the same way in all layers.
    """
    shapes = {name: tuple(value.shape) for name, value in decoder.tensors().items()}
    if split_experts.is_split(stored):
        shapes = split_experts.split_shapes(shapes)
    for ours, (theirs, entry) in stored.items():
        where = f"{entry.file}: {theirs}"
        if ours not in shapes:
            raise problem(where, got="a tensor", expected="none of that name", cure=f"{_FOREIGN}; {hint(ours, shapes)}")
        if entry.shape != shapes[ours]:
            raise problem(where, got=f"shape {entry.shape}", expected=f"{shapes[ours]}", cure=_FOREIGN)
        if entry.dtype not in STORED_DTYPES:
            raise problem(where, got=entry.dtype, expected=" or ".join(STORED_DTYPES), cure="convert it")
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
