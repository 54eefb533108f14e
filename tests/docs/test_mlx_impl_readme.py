"""mlx_impl/README.md: its examples in Python run as they stand there, and what they import is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.markdown import code, read
from tests.support.small_tokenizer import build_tokenizer

BLOCKS = code(read("mlx_impl/README.md"), "python")
USE, SIDECAR, PROMPTS = BLOCKS
CHECKPOINT = "path/to/checkpoint"


def test_the_decoder_is_used_as_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(USE, names)
    assert names["logits"].shape == (1, 1, 320)  # type: ignore[attr-defined]


def test_prompts_are_written_as_shown(tmp_path: Path) -> None:
    build_tokenizer().save(str(tmp_path / "tokenizer.json"))
    names: dict[str, object] = {}
    exec(PROMPTS.replace(CHECKPOINT, str(tmp_path)), names)
    *_, last = ast.parse(PROMPTS).body
    comment = PROMPTS.rsplit("#", 1)[1]
    assert eval(ast.unparse(last), names) == ast.literal_eval(comment.strip())
    assert names["ids"]


@pytest.mark.parametrize("text", BLOCKS)
def test_what_is_imported_is_there(text: str) -> None:
    imports = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    exec(ast.unparse(ast.Module(imports, [])), {})


def test_the_way_into_mlx_lm_is_there() -> None:
    import mlx_impl.sidecar

    assert f'mlx_impl.sidecar.load("{CHECKPOINT}")' in SIDECAR
    assert callable(mlx_impl.sidecar.load)
