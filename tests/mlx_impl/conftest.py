"""Tokenizers: a small one, and the real one."""

from pathlib import Path

import pytest

from mlx_impl.chat.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The small tokenizer, loaded from a checkpoint's folder."""
    from tests.support.small_tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("checkpoint")
    build_tokenizer().save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def real_tokenizer(tokenizer_file: Path) -> Tokenizer:
    """The tokenizer of google/gemma-4-*-it, where it has been fetched."""
    return Tokenizer.load(tokenizer_file)
