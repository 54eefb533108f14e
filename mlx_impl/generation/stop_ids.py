"""The tokens that end an answer."""

from __future__ import annotations

import json
from pathlib import Path

from mlx_impl.errors import problem, shown

_KEY = "eos_token_id"


def stop_ids(checkpoint_dir: str | Path) -> tuple[int, ...]:
    """`eos_token_id` of `generation_config.json`, or else of `config.json`, or else of its `text_config`.

    Published checkpoints declare all three, and the first contains the others: it is `[1, 106, 50]`, while text_config
    has only 1, with which generation would continue after the end of a turn and after a tool call.
    Raises MlxImplError if none is declared, or if the first is neither an id nor a list of ids.
    """
    folder = Path(checkpoint_dir)
    generation, config = _object(folder / "generation_config.json"), _object(folder / "config.json")
    text = config.get("text_config")
    for where, declared in (
        (folder / "generation_config.json", generation.get(_KEY)),
        (folder / "config.json", config.get(_KEY)),
        (folder / "config.json: text_config", text.get(_KEY) if isinstance(text, dict) else None),
    ):
        if declared is not None:
            return _ids(declared, f"{where}: {_KEY}")
    cure = "download generation_config.json with the checkpoint"
    raise problem(str(folder), got=f"no {_KEY}", expected="one in generation_config.json or config.json", cure=cure)


def _ids(declared: object, where: str) -> tuple[int, ...]:
    listed = declared if isinstance(declared, list) else [declared]
    ids = [value for value in listed if isinstance(value, int) and not isinstance(value, bool) and value >= 0]
    if not ids or len(ids) != len(listed):
        raise problem(where, got=shown(declared), expected="an id or a list of ids", cure="download the file again")
    return tuple(dict.fromkeys(ids))


def _object(file: Path) -> dict[str, object]:
    """The JSON object in a file; empty if there is no such file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise problem(str(file), got=f"{error.strerror}", expected="a readable file", cure="check the path") from None
    except (ValueError, RecursionError) as error:
        got = f"no JSON ({shown(str(error))})"
        raise problem(str(file), got=got, expected="JSON", cure="download it again") from None
    if not isinstance(content, dict):
        raise problem(str(file), got=shown(content), expected="a JSON object", cure="download it again")
    return content
