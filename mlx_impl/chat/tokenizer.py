"""Text to token ids and back by a checkpoint's `tokenizer.json`; nothing is added."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from mlx_impl.errors import problem, shown

FILE = "tokenizer.json"
_DOWNLOAD = "download it again"


class Tokenizer:
    """A vocabulary with its merges; `Tokenizer.load` makes one."""

    __slots__ = ("_inner", "_special", "path")

    def __init__(self, inner: tokenizers.Tokenizer, path: Path) -> None:
        inner.no_truncation()  # a file may demand both, and ids would be lost or added silently
        inner.no_padding()
        self._inner = inner
        self._special = frozenset(token for token, added in inner.get_added_tokens_decoder().items() if added.special)
        self.path = path

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read the `tokenizer.json` at a path or in a checkpoint's folder. Raises MlxImplError that names the file."""
        if not isinstance(path, str | Path):
            raise problem("path", got=shown(path), expected="a path", cure="name a checkpoint's folder")
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        content = _read(file)
        try:
            return cls(tokenizers.Tokenizer.from_buffer(content), file)
        except BaseException as error:  # the library panics on some broken files, and a panic is not an Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise problem(str(file), got=_what_it_is(content, error), expected="a tokenizer", cure=_DOWNLOAD) from None

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids of the control tokens."""
        return self._special

    @property
    def decoder(self) -> object:
        """The `decoder` of the file as JSON; None if it has none."""
        decoder = self._inner.decoder
        return None if decoder is None else json.loads(decoder.__getstate__())

    def encode(self, text: str) -> list[int]:
        """The ids of exactly this text: control tokens in it become their ids, and no BOS is added.

        The post-processor is not used, because a rendered prompt begins with `<bos>` and the files of base models would
        add a second one. Raises MlxImplError for a value that is not Unicode text.
        """
        if not isinstance(text, str):
            raise problem("text", got=shown(text), expected="a string", cure="render the conversation first")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            got = f"the lone surrogate {shown(text[error.start])}"
            raise problem(f"text[{error.start}]", got=got, expected="Unicode text", cure="replace it") from None
        try:
            return self._inner.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library has no narrower type
            got = f"text that it cannot encode ({shown(str(error))})"
            raise problem(str(self.path), got=got, expected="a complete vocabulary", cure=_DOWNLOAD) from None

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of `ids`. Raises MlxImplError for an id that the vocabulary does not have."""
        try:
            listed = list(ids)
        except TypeError:
            raise problem("ids", got=shown(ids), expected="a list of ints", cure="pass a list") from None
        checked = [self._checked(token_id, f"ids[{index}]")[0] for index, token_id in enumerate(listed)]
        return self._inner.decode(checked, skip_special_tokens=skip_special_tokens)

    def token(self, token_id: int) -> str:
        """The token as the file writes it: `▁Paris`, `<0xE2>`, `<turn|>`. Raises MlxImplError for an unknown id."""
        return self._checked(token_id, "token id")[1]

    def _checked(self, token_id: object, where: str) -> tuple[int, str]:
        """The id as an int, and its token; MlxImplError for unknown ids, which the library drops silently."""
        try:
            number = -1 if isinstance(token_id, bool) else operator.index(token_id)  # type: ignore[arg-type]
        except TypeError:  # an array of several, or of floats, has __index__ too
            number = -1
        if number < 0:
            raise problem(where, got=shown(token_id), expected="an int", cure="pass plain ints, as .tolist() gives")
        try:
            token = self._inner.id_to_token(number)
        except OverflowError:
            token = None
        if token is None:
            expected = f"an id of the {self._inner.get_vocab_size()} in {self.path}"
            raise problem(where, got=shown(number), expected=expected, cure="these ids belong to another model")
        return number, token


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise problem(str(file), got="no such file", expected=FILE, cure="download it with the checkpoint") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        got = getattr(error, "strerror", None) or str(error)
        raise problem(str(file), got=got, expected="a readable file", cure="check the path") from None


def _what_it_is(content: bytes, error: BaseException) -> str:
    try:
        json.loads(content)
    except (ValueError, RecursionError) as no_json:
        return f"no JSON ({shown(str(no_json))})"
    return f"JSON that is no tokenizer ({shown(str(error))})"
