"""Make the helper modules importable whatever import mode pytest runs in; tokenizers, a small one and the real one."""

import sys
from pathlib import Path

import pytest

from mlx_impl.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The small tokenizer, loaded from a checkpoint's folder."""
    from small_tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("checkpoint")
    build_tokenizer().save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def real_tokenizer(tokenizer_file: Path) -> Tokenizer:
    """The tokenizer of google/gemma-4-*-it, where it has been fetched."""
    return Tokenizer.load(tokenizer_file)
