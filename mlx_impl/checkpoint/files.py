"""Safetensors on disk: which files there are, which tensors they hold, and whether each file is complete.

Headers are read here and not by `mx.load`, whose errors name neither the tensor nor the cure.
"""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_impl.errors import problem, shown

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DOWNLOAD = "download it again"
_HEADER_LIMIT = 100_000_000  # the format's own limit; a random file would ask for petabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One tensor as the header of its file describes it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Where its bytes begin in the file."""


def read_json(path: Path) -> object:
    """The content of a JSON file. Raises MlxImplError if the file is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise problem(
            str(path), got="no such file", expected="the file in the model's directory", cure=_DOWNLOAD
        ) from None
    except OSError as error:
        raise problem(str(path), got=f"{error.strerror}", expected="a readable file", cure="check the path") from None
    except (ValueError, RecursionError) as error:
        raise problem(str(path), got=f"no JSON ({shown(str(error))})", expected="JSON", cure=_DOWNLOAD) from None


def inventory(model_dir: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint: those of `model.safetensors`, or else of the shards that the index names."""
    if (model_dir / SINGLE).is_file():
        return read_header(model_dir / SINGLE)
    index = model_dir / INDEX
    if not index.is_file():
        have = shown(sorted(p.name for p in model_dir.glob("*") if p.suffix in (".safetensors", ".bin", ".gguf")))
        raise problem(str(model_dir), got=have, expected=f"{SINGLE} or {INDEX}", cure="only safetensors are read")
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise problem(str(index), got="no weight_map", expected="tensor name -> file", cure=_DOWNLOAD)
    headers: dict[str, dict[str, Stored]] = {}
    stored: dict[str, Stored] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise problem(str(index), got=f"{name} in {shown(file)}", expected="a plain file name", cure=_DOWNLOAD)
        if file not in headers:
            headers[file] = read_header(model_dir / file)
        if name not in headers[file]:
            raise problem(str(model_dir / file), got=f"no tensor {name}", expected=f"what {INDEX} says", cure=_DOWNLOAD)
        stored[name] = headers[file][name]
    return stored


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file. Raises MlxImplError if it is missing, truncated or not a safetensors file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(size - 8, _HEADER_LIMIT):
                got = f"{size} bytes, although the header needs 8 + {length}"
                raise problem(str(path), got=got, expected="a complete safetensors file", cure=_DOWNLOAD)
            header = json.loads(file.read(length))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        stored = {
            name: Stored(
                file=path,
                dtype=str(entry["dtype"]),
                shape=tuple(int(n) for n in entry["shape"]),
                offset=8 + length + int(entry["data_offsets"][0]),
            )
            for name, entry in entries.items()
        }
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except FileNotFoundError:
        raise problem(str(path), got="no such file", expected="a safetensors file", cure=_DOWNLOAD) from None
    except OSError as error:
        raise problem(str(path), got=f"{error.strerror}", expected="a readable file", cure="check the path") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        got = f"a broken header ({type(error).__name__})"
        raise problem(str(path), got=got, expected="a safetensors file", cure=_DOWNLOAD) from None
    if size != end:
        raise problem(str(path), got=f"{size} bytes", expected=f"{end} by its header", cure=_DOWNLOAD)
    return stored


def read_tensors(files: Iterable[Path]) -> dict[str, mx.array]:
    """The arrays of several files, read lazily by MLX."""
    arrays: dict[str, mx.array] = {}
    for path in sorted(set(files)):
        try:
            loaded = mx.load(str(path), format="safetensors")
        except (RuntimeError, ValueError) as error:
            got = f"a file that MLX refuses ({shown(str(error))})"
            raise problem(str(path), got=got, expected="a safetensors file", cure=_DOWNLOAD) from None
        if isinstance(loaded, dict):
            arrays.update(loaded)
    return arrays
