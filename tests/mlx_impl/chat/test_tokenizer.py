"""The tokenizer: text as it is, nothing added, nothing lost; and which ids end an answer."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from mlx_impl import MlxImplError
from mlx_impl.chat.tokenizer import Tokenizer
from mlx_impl.generation.stop_ids import stop_ids
from tests.support.small_tokenizer import build_tokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab ▁\n\t<|>é😀"), max_size=30)


def error_of(call: Any, *arguments: Any) -> str:
    """The message of the MlxImplError that the call raises, checked to be one line of got, expected and a cure."""
    with pytest.raises(MlxImplError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert message.index(": got ") < message.index("; expected ") < message.rindex("; ")
    return message


def load_built(built: tokenizers.Tokenizer, folder: Path) -> Tokenizer:
    built.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder / "tokenizer.json")


def test_text_becomes_ids_and_text_again(small_tokenizer: Tokenizer) -> None:
    assert [small_tokenizer.token(token) for token in small_tokenizer.encode(" Hi the\n\n")] == ["▁Hi", "▁the", "\n\n"]
    assert [small_tokenizer.token(token) for token in small_tokenizer.encode("é")] == ["<0xC3>", "<0xA9>"]
    assert small_tokenizer.decode(small_tokenizer.encode(" Hi é😀\n")) == " Hi é😀\n"


def test_control_tokens_in_the_text_are_ids(small_tokenizer: Tokenizer) -> None:
    ids = small_tokenizer.encode("<bos><|turn>Hi<turn|>")
    assert [small_tokenizer.token(token) for token in ids] == ["<bos>", "<|turn>", "Hi", "<turn|>"]
    assert [token in small_tokenizer.special_ids for token in ids] == [True, True, False, True]
    assert small_tokenizer.decode(ids) == "<bos><|turn>Hi<turn|>"
    assert small_tokenizer.decode(ids, skip_special_tokens=True) == "Hi"


def test_an_added_token_need_not_be_special(tmp_path: Path) -> None:
    built = build_tokenizer()
    built.add_tokens(["[multimodal]"])
    loaded = load_built(built, tmp_path)
    ids = loaded.encode("[multimodal]<eos>")
    assert [token in loaded.special_ids for token in ids] == [False, True]
    assert loaded.decode(ids, skip_special_tokens=True) == "[multimodal]"


def test_nothing_is_added_whatever_the_file_asks_for(tmp_path: Path) -> None:
    built = build_tokenizer()
    bos = built.token_to_id("<bos>")
    built.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    built.enable_padding(length=16)
    built.enable_truncation(4)
    loaded = load_built(built, tmp_path)
    raw = built.encode("<bos>Hi the Hi the").ids
    assert raw[:2] == [bos, bos]  # what must not happen does happen without care
    assert len(raw) == 16
    ids = loaded.encode("<bos>Hi the Hi the")
    assert [loaded.token(token) for token in ids] == ["<bos>", "Hi", "▁the", "▁Hi", "▁the"]
    assert loaded.encode("") == []


@given(text=TEXTS)
def test_decode_undoes_encode(small_tokenizer: Tokenizer, text: str) -> None:
    """But for `▁`, which the format has no other way to write than as the space it stands for."""
    assert small_tokenizer.decode(small_tokenizer.encode(text)) == text.replace("▁", " ")


@pytest.mark.parametrize(
    ("text", "index"), [("\ud800", 0), ("a\udfff", 1), ("😀\ud83d", 1)], ids=["alone", "behind text", "half a pair"]
)
def test_a_lone_surrogate_is_named(small_tokenizer: Tokenizer, text: str, index: int) -> None:
    message = error_of(small_tokenizer.encode, text)
    assert f"text[{index}]: got the lone surrogate '\\ud" in message


@pytest.mark.parametrize("text", [None, b"Hi", 3, ["Hi"]])
def test_what_is_no_string_is_refused(small_tokenizer: Tokenizer, text: object) -> None:
    assert error_of(small_tokenizer.encode, text).startswith(f"text: got {text!r}; expected a string")


@pytest.mark.parametrize("bad", [-1, 367 + 10**6, 2**32, 2**70, True, None, "7", 1.0, [1]])
def test_ids_that_are_none_are_named(small_tokenizer: Tokenizer, bad: Any) -> None:
    assert error_of(small_tokenizer.decode, [5, bad]).startswith(f"ids[1]: got {bad!r}; expected an ")
    assert error_of(small_tokenizer.token, bad).startswith(f"token id: got {bad!r}; expected an ")


def test_the_last_id_is_the_vocabularys_size_less_one(small_tokenizer: Tokenizer) -> None:
    size = build_tokenizer().get_vocab_size()
    assert small_tokenizer.token(size - 1) == "\n\n"
    assert f"an id of the {size} in " in error_of(small_tokenizer.token, size)


def test_ids_of_numpy_are_ids(small_tokenizer: Tokenizer) -> None:
    ids = small_tokenizer.encode(" Hi")
    assert small_tokenizer.decode(np.array(ids)) == " Hi"
    assert "np.float32" in error_of(small_tokenizer.decode, np.array(ids, np.float32))


def test_an_unknown_character_without_byte_fallback_is_no_traceback(tmp_path: Path) -> None:
    built = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="<unk>"))
    assert "text that it cannot encode" in error_of(load_built(built, tmp_path).encode, "b")


def panicking() -> str:
    """A file on which the library panics: merges that begin with a token shorter than the prefix of a subword."""
    content = json.loads(build_tokenizer().to_str())
    content["model"]["continuing_subword_prefix"] = "####"
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("", "no JSON ("),
        ("<html>", "no JSON ("),
        ('{"version": "1.0", "model"', "no JSON ("),
        ("[" * 100_000, "no JSON ("),
        ("{}", "JSON that is no tokenizer ("),
        ("[1]", "JSON that is no tokenizer ("),
        ('{"version": "9.9"}', "JSON that is no tokenizer ("),
        (panicking(), "JSON that is no tokenizer ("),
    ],
    ids=["empty", "page", "cut", "nested", "object", "list", "version", "panic"],
)
def test_what_is_no_tokenizer_is_named(tmp_path: Path, content: str, got: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(content)
    assert error_of(Tokenizer.load, tmp_path).startswith(f"{file}: got {got}")


def test_bytes_that_are_no_utf_8_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    assert "got no JSON (" in error_of(Tokenizer.load, tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "no such file; expected tokenizer.json"
    assert error_of(Tokenizer.load, tmp_path).startswith(f"{tmp_path / 'tokenizer.json'}: got {missing}")
    assert error_of(Tokenizer.load, str(tmp_path / "absent.json")).startswith(
        f"{tmp_path / 'absent.json'}: got no such"
    )
    assert "expected a readable file" in error_of(Tokenizer.load, "a\0b")
    (tmp_path / "tokenizer.json").mkdir()
    assert error_of(Tokenizer.load, tmp_path).startswith(f"{tmp_path / 'tokenizer.json'}: got Is a directory")

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "got Permission denied; expected a readable file" in error_of(Tokenizer.load, tmp_path)


def test_no_mlx_is_needed() -> None:
    modules = "mlx_impl.chat.tokenizer, mlx_impl.chat.detokenizer, mlx_impl.chat.answer, mlx_impl.generation.stop_ids"
    code = f"import sys; sys.modules['mlx'] = None; import {modules}; print('mlx.core' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


GENERATION, TOP, TEXT = [1, 106, 50], [1, 106], 1


@pytest.mark.parametrize(
    ("generation", "config", "stops"),
    [
        ({"eos_token_id": GENERATION}, {"eos_token_id": TOP, "text_config": {"eos_token_id": TEXT}}, (1, 106, 50)),
        ({}, {"eos_token_id": TOP, "text_config": {"eos_token_id": TEXT}}, (1, 106)),
        ({"eos_token_id": None}, {"eos_token_id": TOP}, (1, 106)),
        (None, {"eos_token_id": None, "text_config": {"eos_token_id": TEXT}}, (1,)),
        (None, {"text_config": {"eos_token_id": [0]}}, (0,)),
        ({"eos_token_id": 106}, None, (106,)),
        ({"eos_token_id": [106, 1, 106]}, {}, (106, 1)),
    ],
)
def test_the_last_declaration_governs(tmp_path: Path, generation: object, config: object, stops: object) -> None:
    write_configs(tmp_path, generation, config)
    assert stop_ids(tmp_path) == stop_ids(str(tmp_path)) == stops


def write_configs(folder: Path, generation: object, config: object) -> None:
    for name, content in (("generation_config.json", generation), ("config.json", config)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("declared", [[], [1, "106"], "1", True, [True], -1, 1.0, {"eos": 1}, [[1]], [None]])
def test_what_is_no_stop_id_is_refused(tmp_path: Path, declared: object) -> None:
    write_configs(tmp_path, {"eos_token_id": declared}, {"eos_token_id": [1]})  # it does not fall back in silence
    where = f"{tmp_path / 'generation_config.json'}: eos_token_id: got {declared!r}; "
    assert error_of(stop_ids, tmp_path).startswith(where)
    write_configs(tmp_path, {}, {"text_config": {"eos_token_id": declared}})
    assert error_of(stop_ids, tmp_path).startswith(f"{tmp_path / 'config.json'}: text_config: eos_token_id: got ")


@pytest.mark.parametrize("config", [None, {}, {"text_config": None}, {"text_config": [1]}, {"text_config": {}}])
def test_no_declaration_is_an_error(tmp_path: Path, config: object) -> None:
    write_configs(tmp_path, None, config)
    assert error_of(stop_ids, tmp_path).startswith(
        f"{tmp_path}: got no eos_token_id; expected one in generation_config"
    )


@pytest.mark.parametrize(("content", "got"), [("{", "no JSON ("), ("[1]", "[1]"), ("[" * 10**5, "no JSON (")])
def test_a_broken_generation_config_is_no_missing_one(tmp_path: Path, content: str, got: str) -> None:
    write_configs(tmp_path, None, {"eos_token_id": 1})
    (tmp_path / "generation_config.json").write_text(content)
    assert error_of(stop_ids, tmp_path).startswith(f"{tmp_path / 'generation_config.json'}: got {got}")
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "generation_config.json").mkdir()
    assert "Is a directory" in error_of(stop_ids, tmp_path)


FACTS = {
    "Hello": [9259],
    "Hello, what is your name?": [9259, 236764, 1144, 563, 822, 1463, 236881],
    "The capital of France is": [818, 5279, 529, 7001, 563],
    "before <|image|> after": [15849, 236743, 258880, 1308],
    "Hi": [10979],
    " Hi": [18428],
    " Paris": [9079],
    "<bos><|turn>user\nWhat is the capital of France?<turn|>\n<|turn>model\n": [
        *(2, 105, 2364, 107, 3689, 563, 506, 5279, 529, 7001, 236881, 106, 107, 105, 4368, 107)
    ],
    "<|channel>thought\n<channel|>": [100, 45518, 107, 101],
    "": [],
}


@pytest.mark.parametrize("text", FACTS)
def test_the_real_ids(real_tokenizer: Tokenizer, text: str) -> None:
    assert real_tokenizer.encode(text) == FACTS[text]
    assert real_tokenizer.decode(FACTS[text]) == text


def test_the_real_control_tokens(real_tokenizer: Tokenizer) -> None:
    media = (255999, 256000, 258880, 258881, 258882, 258883, 258884)
    assert real_tokenizer.special_ids == {*range(5), *range(46, 53), 98, 100, 101, 105, 106, *media}
    assert "an id of the 262144 in " in error_of(real_tokenizer.token, 262144)


@given(text=TEXTS)
def test_the_real_decode_undoes_encode(real_tokenizer: Tokenizer, text: str) -> None:
    assert real_tokenizer.decode(real_tokenizer.encode(text)) == text.replace("▁", " ")


@pytest.mark.parametrize("ids", [5, None, np.zeros((1, 2), dtype=int), np.array([1.5]), [10**5000], [-1]])
def test_what_is_no_list_of_ids_is_refused(small_tokenizer: Tokenizer, ids: Any) -> None:
    with pytest.raises(MlxImplError, match=r"^ids"):
        small_tokenizer.decode(ids)


@pytest.mark.parametrize("path", [None, 7, ["x"]])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(MlxImplError, match=r"^path: got .* expected a path"):
        Tokenizer.load(path)
