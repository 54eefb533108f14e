"""Fetches tokenizer.json of the -it models: made from llama.cpp's vocabulary, from the hub, or from a user's file."""

from __future__ import annotations

from pathlib import Path

from conformance.fetch import cache
from conformance.fetch.errors import FetchError
from conformance.fetch.hub import hub_file
from conformance.fetch.index import Index
from conformance.fetch.llama_cpp import Sources
from conformance.fetch.published import DRAFTER_TOKENIZER, HUB, LLAMA_CPP, TOKENIZER, VECTORS
from conformance.fetch.stored import Fetched, in_cache, store
from conformance.fetch.users_file import read_users_file
from gemma4_contract import FixtureError
from gemma4_contract.files import sha256

NAME = "tokenizer.json"
SPECIAL_IDS = (
    *(0, 1, 2, 3, 4),  # <pad> <eos> <bos> <unk> <mask>
    *(46, 47, 48, 49, 50, 51, 52),  # tools, and the quote of their strings
    *(98, 100, 101, 105, 106),  # thinking, channels and turns
    *(255_999, 256_000, 258_880, 258_881, 258_882, 258_883, 258_884),  # images, audio and video
)
"""The 24 special tokens."""
VERIFIED_WITH = "0.23.3"
"""A version of tokenizers that writes the published bytes; 0.20.3 to 0.23.3 were seen to write them."""


def tokenizer_from_index(index: Index) -> list[Fetched]:
    """tokenizer.json, and llama.cpp's vectors and large templates, which are in the same package.

    FetchError if the package cannot be fetched, or if the installed library writes the file differently.
    """
    kept = in_cache(NAME, cache.tokenizer_path(), TOKENIZER)
    vectors = [in_cache(name, cache.vectors_dir() / name, published) for name, published in VECTORS.items()]
    if kept and all(vectors):
        return [kept, *filter(None, vectors)]
    sources = Sources.read(index.file(LLAMA_CPP))
    others = [*sources.store_vectors(), *sources.store_templates()]
    return [kept or _store(build(sources), source=f"made from {LLAMA_CPP.file}"), *others]


def tokenizer_from_hub() -> list[Fetched]:
    """tokenizer.json of the model hub; FetchError if it cannot be fetched."""
    if kept := in_cache(NAME, cache.tokenizer_path(), TOKENIZER):
        return [kept]
    repository = HUB["small"]
    cure = "the hub has another file now: take --from index"
    return [_store(hub_file(repository, NAME), source=repository, cure=cure)]


def tokenizer_from_path(path: Path) -> list[Fetched]:
    """The tokenizer.json of a checkpoint, or that file itself; FixtureError if it is missing or another file."""
    file, data = read_users_file(path, NAME)
    got = sha256(data)
    if got != TOKENIZER.sha256:
        drafter = " (the drafters' file, where <|video|> is not special)" if got.startswith(DRAFTER_TOKENIZER) else ""
        raise FixtureError(
            file,
            got=f"sha256 {got}{drafter}",
            expected=f"{TOKENIZER.sha256} of the -it models",
            cure="base models and drafters have other files: take that of an -it model, or --from index",
        )
    return [_store(data, source=str(file))]


def build(sources: Sources) -> bytes:
    """The text of tokenizer.json; FetchError if the installed tokenizers cannot make it."""
    import tokenizers
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    try:
        vocabulary = {token: i for i, token in enumerate(sources.tokens)}
        model = models.BPE(
            vocab=vocabulary, merges=sources.merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
        made = Tokenizer(model)
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        made.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
        made.add_special_tokens([sources.tokens[i] for i in SPECIAL_IDS])
        return made.to_str(pretty=True).encode()
    except Exception as error:  # the library raises Exception itself
        raise FetchError(f"tokenizers {tokenizers.__version__}: {error}; {_cure()}") from None


def _store(data: bytes, *, source: str, cure: str | None = None) -> Fetched:
    return store(NAME, cache.tokenizer_path(), TOKENIZER, data, source=source, cure=cure or _cure())


def _cure() -> str:
    import tokenizers

    return f"tokenizers {tokenizers.__version__} was tried, take {VERIFIED_WITH}, or --from hub, or --from PATH"
