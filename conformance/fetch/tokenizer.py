"""tokenizer.json of the -it models: made from llama.cpp's vocabulary, from a hub, or a file of the user's."""

from __future__ import annotations

from pathlib import Path

from conformance.fetch import cache
from conformance.fetch.errors import FetchError
from conformance.fetch.fetched import Fetched, keep, there
from conformance.fetch.hub import hub_file
from conformance.fetch.index import Index
from conformance.fetch.llama_cpp import Sources
from conformance.fetch.published import DRAFTER_TOKENIZER, HUB, LLAMA_CPP, TOKENIZER, VECTORS
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
"""The version of tokenizers that surely writes the published bytes; 0.20.3 to 0.23.3 were seen to."""


def tokenizer_from_index(index: Index) -> list[Fetched]:
    """tokenizer.json, llama.cpp's vectors and the large templates that lie beside them.

    FetchError where the package cannot be had, or the library here writes the file in another way.
    """
    kept = there(NAME, cache.tokenizer_path(), TOKENIZER)
    vectors = [there(name, cache.vectors_dir() / name, published) for name, published in VECTORS.items()]
    if kept and all(vectors):
        return [kept, *filter(None, vectors)]
    sources = Sources.read(index.file(LLAMA_CPP))
    beside = [*sources.keep_vectors(), *sources.keep_templates()]
    return [kept or _keep(build(sources), source=f"made from {LLAMA_CPP.file}"), *beside]


def tokenizer_from_hub() -> list[Fetched]:
    """tokenizer.json of a model hub; FetchError where it cannot be had."""
    if kept := there(NAME, cache.tokenizer_path(), TOKENIZER):
        return [kept]
    repository = HUB["small"]
    cure = "the hub has another one now: take --from index"
    return [_keep(hub_file(repository, NAME), source=repository, cure=cure)]


def tokenizer_from_path(path: Path) -> list[Fetched]:
    """tokenizer.json of a checkpoint, or that file itself; FixtureError where it is missing or another one."""
    file, data = read_users_file(path, NAME)
    got = sha256(data)
    if got != TOKENIZER.sha256:
        drafter = " (the drafters' file, where <|video|> is not special)" if got.startswith(DRAFTER_TOKENIZER) else ""
        raise FixtureError(
            file,
            got=f"sha256 {got}{drafter}",
            expected=f"{TOKENIZER.sha256} of the -it models",
            cure="the files of base models and of drafters are others, take that of an -it model or --from index",
        )
    return [_keep(data, source=str(file))]


def build(sources: Sources) -> bytes:
    """The text of tokenizer.json; FetchError where tokenizers knows no more how to make it."""
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


def _keep(data: bytes, *, source: str, cure: str | None = None) -> Fetched:
    return keep(NAME, cache.tokenizer_path(), TOKENIZER, data, source=source, cure=cure or _cure())


def _cure() -> str:
    import tokenizers

    return f"tokenizers {tokenizers.__version__} was tried, take {VERIFIED_WITH}, or --from hub, or --from PATH"
