"""The streaming detokenizer: its pieces, joined, are the decoded whole, and come as soon as they are certain."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders

from mlx_impl import MlxImplError
from mlx_impl.chat.detokenizer import StreamingDetokenizer
from mlx_impl.chat.tokenizer import Tokenizer
from tests.support.small_tokenizer import CONTROL, build_tokenizer

SMALL = build_tokenizer()
BYTES = st.binary(min_size=1, max_size=4)
CHARACTERS = st.characters(exclude_categories=["Cs"]).map(str.encode)
TOKENS = st.sampled_from([*CONTROL, "▁", "▁▁", "▁Hi", "Hi", "\n\n", "<", "\N{REPLACEMENT CHARACTER}"])
REPLACED = "\N{REPLACEMENT CHARACTER}"
# Text, control tokens, whole characters as bytes and bytes in any order, next to each other.
MIXED = st.lists(TOKENS | BYTES | CHARACTERS, max_size=12)


def ids_of(parts: list[str | bytes], tokenizer: Tokenizer) -> list[int]:
    """The ids of parts: a string is one token, bytes are byte tokens."""
    first = tokenizer.encode("\0")[0]
    ids = []
    for part in parts:
        ids += [first + byte for byte in part] if isinstance(part, bytes) else tokenizer.encode(part)
    return ids


def streamed(tokenizer: Tokenizer, ids: list[int], *, skip: bool = False) -> list[str]:
    detokenizer = StreamingDetokenizer(tokenizer, skip_special_tokens=skip)
    return [*(detokenizer.add(token) for token in ids), detokenizer.finish()]


@given(parts=MIXED, skip=st.booleans())
@example(parts=["é".encode(), b"\xff", "é".encode()], skip=False)
@example(parts=[b"\xe2", "<|turn>", b"\x82\xac", "Hi"], skip=True)
@example(parts=[b"\xe2\x96\x81", "▁Hi"], skip=False)
def test_pieces_are_the_whole(small_tokenizer: Tokenizer, parts: list[str | bytes], skip: bool) -> None:
    ids = ids_of(parts, small_tokenizer)
    assert "".join(streamed(small_tokenizer, ids, skip=skip)) == small_tokenizer.decode(ids, skip_special_tokens=skip)


@given(ids=st.lists(st.integers(0, SMALL.get_vocab_size() - 1), max_size=60))
def test_pieces_are_the_whole_for_any_ids(small_tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(streamed(small_tokenizer, ids)) == small_tokenizer.decode(ids)


EDGES = bytes.fromhex("00417f808f909fa0bfc0c1c2dfe0e1ecedeeeff0f1f3f4f5ff")  # where the rules of UTF-8 change


@pytest.mark.parametrize("tail", [b"", b"\x80", b"\x80\x80", b"A"])
def test_the_edges_of_utf_8_are_as_in_the_whole(small_tokenizer: Tokenizer, tail: bytes) -> None:
    runs = [ids_of([bytes(pair) + tail], small_tokenizer) for pair in itertools.product(EDGES, EDGES)]
    assert ["".join(streamed(small_tokenizer, ids)) for ids in runs] == [small_tokenizer.decode(ids) for ids in runs]


@pytest.mark.parametrize(
    ("parts", "pieces"),
    [
        (["Hi", "▁the", "\n\n"], ["Hi", " the", "\n\n", ""]),
        ([b"\xe2\x82\xac", "Hi"], ["", "", "", "€Hi", ""]),
        (["Hi", b"\xe2\x82\xac"], ["Hi", "", "", "", "€"]),
        ([b"\xe2\x82", "Hi"], ["", "", REPLACED * 2 + "Hi", ""]),
        ([b"\xe2\x82"], ["", "", REPLACED * 2]),
        # One bad byte spoils the characters before it, so that none was certain; from there on all are lost.
        ([b"\xc3\xa9\xff\xc3\xa9", "Hi"], ["", "", REPLACED * 3, REPLACED, REPLACED, "Hi", ""]),
        ([b"\xff", "<|turn>", b"\xc3\xa9"], [REPLACED, "<|turn>", "", "", "é"]),
    ],
)
def test_text_comes_when_it_is_certain(small_tokenizer: Tokenizer, parts: list[str | bytes], pieces: list[str]) -> None:
    assert streamed(small_tokenizer, ids_of(parts, small_tokenizer)) == pieces


def test_a_run_goes_on_behind_a_skipped_token(small_tokenizer: Tokenizer) -> None:
    ids = ids_of([b"\xe2", "<|turn>", b"\x82\xac", "Hi"], small_tokenizer)
    assert streamed(small_tokenizer, ids, skip=True) == ["", "", "", "", "€Hi", ""]
    assert streamed(small_tokenizer, ids) == ["", f"{REPLACED}<|turn>", REPLACED, REPLACED, "Hi", ""]


def test_pythons_own_replacement_is_another(small_tokenizer: Tokenizer) -> None:
    """Why the rule of runs is needed: decoding the joined bytes leniently gives another text than the library."""
    for spoilt in (b"\xc3\xa9\xff", b"\xe2\x82"):
        ids = ids_of([spoilt], small_tokenizer)
        assert small_tokenizer.decode(ids) == "".join(streamed(small_tokenizer, ids)) == REPLACED * len(spoilt)
        assert spoilt.decode(errors="replace") != REPLACED * len(spoilt)


def test_finish_begins_anew(small_tokenizer: Tokenizer) -> None:
    detokenizer = StreamingDetokenizer(small_tokenizer)
    half, rest = ids_of([b"\xc3"], small_tokenizer), ids_of([b"\xa9"], small_tokenizer)
    assert (detokenizer.add(half[0]), detokenizer.finish(), detokenizer.finish()) == ("", REPLACED, "")
    assert (detokenizer.add(half[0]), detokenizer.add(rest[0]), detokenizer.finish()) == ("", "", "é")


def test_no_token_is_looked_up_twice(small_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a token costs does not grow with the text: nothing is decoded again."""
    asked: list[int] = []
    ids = ids_of(["▁Hi", "é".encode(), "<|turn>"], small_tokenizer)
    look_up, whole = Tokenizer.token, small_tokenizer.decode(ids * 500)
    monkeypatch.setattr(Tokenizer, "token", lambda self, token: (asked.append(token), look_up(self, token))[1])
    monkeypatch.delattr(Tokenizer, "decode")
    assert "".join(streamed(small_tokenizer, ids * 500)) == whole
    assert sorted(asked) == sorted(set(ids))


@pytest.mark.parametrize("bad", [-1, 10**6, True, 1.0, "1", None, [1]])
def test_an_id_that_is_none_is_named(small_tokenizer: Tokenizer, bad: object) -> None:
    detokenizer = StreamingDetokenizer(small_tokenizer)
    detokenizer.add(1)  # which True and 1.0 equal
    with pytest.raises(MlxImplError) as caught:
        detokenizer.add(bad)
    assert str(caught.value).startswith(f"token id: got {bad!r}; expected an ")


@pytest.mark.parametrize("decoder", [decoders.ByteLevel(), decoders.Metaspace(), None])
def test_another_decoder_is_refused(tmp_path: Path, decoder: object) -> None:
    built = build_tokenizer()
    built.decoder = decoder
    built.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(MlxImplError, match=r"tokenizer\.json: decoder: got .*; expected Replace ▁, ByteFallback, Fuse"):
        StreamingDetokenizer(Tokenizer.load(tmp_path))


@given(st.data())
def test_real_pieces_are_the_whole(real_tokenizer: Tokenizer, data: st.DataObject) -> None:
    any_id = st.integers(0, 262143)
    special = st.sampled_from(sorted(real_tokenizer.special_ids))
    some = st.lists(any_id | special | st.integers(238, 493), max_size=40)
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(real_tokenizer.encode)
    ids = [token for part in data.draw(st.lists(some | texts, max_size=5)) for token in part]
    for skip in (False, True):
        assert "".join(streamed(real_tokenizer, ids, skip=skip)) == real_tokenizer.decode(ids, skip_special_tokens=skip)


def test_every_real_token_is_as_in_the_whole(real_tokenizer: Tokenizer) -> None:
    ids = list(range(262144))
    assert "".join(streamed(real_tokenizer, ids)) == real_tokenizer.decode(ids)


def test_elements_of_arrays_are_skipped_like_ints(small_tokenizer: Tokenizer) -> None:
    ids = small_tokenizer.encode("<bos><|turn>hi<turn|>")
    stream = StreamingDetokenizer(small_tokenizer, skip_special_tokens=True)
    assert "".join(map(stream.add, np.array(ids))) + stream.finish() == "hi"
    assert small_tokenizer.decode(np.array(ids), skip_special_tokens=True) == "hi"  # type: ignore[arg-type]
