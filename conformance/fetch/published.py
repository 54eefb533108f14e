"""Digests, sizes and sources of published files that the project does not ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_INDEX = "https://pypi.org/simple"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The digest and size of a file."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A file of a project on the package index."""

    project: str
    file: str
    published: Published


TOKENIZER = Published(
    sha256="cc8d3a0ce36466ccc1278bf987df5f71db1719b9ca6b4118264f45cb627bfe0f",
    size=32_169_626,
)
"""tokenizer.json of google/gemma-4-*-it."""

DRAFTER_TOKENIZER = "75a6583c"
"""The beginning of the digest of the drafters' tokenizer.json, in which <|video|> is not special."""

TEMPLATES: Mapping[str, Published] = {
    "small@2026-04-02": Published(
        sha256="52152da6b5f2113aa652de81ee93c0b3febe1ffab8a08a6bc20414ebee74ab18", size=11_927
    ),
    "small@2026-04-10": Published(
        sha256="781d10940fbc44be40064b5d43a056fc486c84ceaa55538226368b57314132bf", size=16_317
    ),
    "small@2026-04-28": Published(
        sha256="33204f1acb5bd0002713e16a593847f24ceeafe711ed88bda2a352dc996a3373", size=16_804
    ),
    "small@2026-05-22": Published(
        sha256="2f1b4d75d067bae3fe44e676721c7f077d243bc007156cb9c2f8b5836613d082", size=17_336
    ),
    "small@2026-07-09": Published(
        sha256="0a2c8073c878ab1da004bee933a998606537bbb62016310352c7285c3f01c5b5", size=18_569
    ),
    "large@2026-04-02": Published(
        sha256="2dfbfc7d538912f4ea11d29d85b4e25d7bc26386e53f57529f1d707c28b5828c", size=12_045
    ),
    "large@2026-04-10": Published(
        sha256="85a08664d16d8f3be4416c92427b3ac10df1024ac566cc0b4bc3bab409393f98", size=16_448
    ),
    "large@2026-04-28": Published(
        sha256="94899c0f917d93f6fe81c95744d1e8ddab2d21d39228d2e4aec1fb2a25bff413", size=16_934
    ),
    "large@2026-06-03": Published(
        sha256="36e3a42e5cf14cd0020e72d92e1fdd9970f59b82170e421f0cbe1bb42bead3f0", size=17_466
    ),
    "large@2026-07-09": Published(
        sha256="ae53464bf3be25802b3a5b37def7fd89667067d7577049b3b2d74c4d8de4c6d4", size=18_683
    ),
}
"""chat_template.jinja by size class (small: E2B, E4B; large: 12B, 26B-A4B, 31B) and date of revision."""

CURRENT: Mapping[str, str] = {"small": "small@2026-07-09", "large": "large@2026-07-09"}
"""The last known revision of each size class."""

HUB: Mapping[str, str] = {"small": "google/gemma-4-E2B-it", "large": "google/gemma-4-31B-it"}
"""A repository of each size class; all share one tokenizer.json."""

LLAMA_CPP = Package(
    project="llama-cpp-python",
    file="llama_cpp_python-0.3.36.tar.gz",
    published=Published(sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e", size=76_589_250),
)
"""It holds llama.cpp, with the vocabulary, test vectors and the first two large templates."""

TRL = Package(
    project="trl",
    file="trl-1.16.0-py3-none-any.whl",
    published=Published(sha256="c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396", size=948_205),
)
"""It holds the small templates."""

GGUF_MEMBER = "llama_cpp_python-0.3.36/vendor/llama.cpp/models/ggml-vocab-gemma-4.gguf"
"""The vocabulary; its metadata holds the first large template."""

LARGE_MEMBER = "llama_cpp_python-0.3.36/vendor/llama.cpp/models/templates/google-gemma-4-31B-it.jinja"
"""large@2026-04-10."""

VECTORS: Mapping[str, Published] = {
    "ggml-vocab-gemma-4.gguf.inp": Published(
        sha256="0528aa007b06965f980181d252b5dff7bb170a77af6157bd48bba56885374448", size=1_922
    ),
    "ggml-vocab-gemma-4.gguf.out": Published(
        sha256="ba8c596bcd05e97e62566fa994b42eeaeffd6a4e4b4a4abe7b5b689aa6b43bf3", size=2_185
    ),
}
"""llama.cpp's own texts and their ids, which are in the folder of the vocabulary."""

SMALL_MEMBERS: Mapping[str, str] = {
    "small@2026-04-02": "trl/chat_templates/gemma4_v2.jinja",
    "small@2026-04-10": "trl/chat_templates/gemma4_v3.jinja",
    "small@2026-04-28": "trl/chat_templates/gemma4.jinja",
    "small@2026-05-22": "trl/chat_templates/gemma4_v4.jinja",
    "small@2026-07-09": "trl/chat_templates/gemma4_v5.jinja",
}
"""Small template -> its file in the package, where the first one has no final newline."""
