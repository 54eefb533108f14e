"""What the command shows of an answer: its parts, breaches of the format, thoughts, figures."""

import pytest

from mlx_impl.chat.tokenizer import Tokenizer
from mlx_impl.cli.session import Figures
from mlx_impl.cli.show import JsonShow, Speech, TextShow
from mlx_impl.generation.generate import Finish, Generated
from tests.support import speaking
from tests.support.speaking import TOKENS, answers


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    file = tmp_path_factory.mktemp("speaking") / "tokenizer.json"
    speaking.tokenizer().save(str(file))
    return Tokenizer.load(file)


def spoken(tokenizer: Tokenizer, text: str, *, raw: bool = False, stop: str | None = None) -> Speech:
    """The speech of an answer that is this text, and ends with that token."""
    speech = Speech(tokenizer, raw=raw)
    for token_id in tokenizer.encode(text):
        speech.add(Generated(id=token_id, logprob=0.0, finish=None))
    if stop is not None:
        speech.add(Generated(id=TOKENS.index(stop), logprob=0.0, finish="stop"))
    speech.finish()
    return speech


def test_the_parts_of_an_answer(tokenizer: Tokenizer) -> None:
    text = "<|channel>thought\nan ant\n<channel|>sing \N{ANT}"
    speech = spoken(tokenizer, text, stop="<turn|>")
    assert speech.parts == {"thinking": "an ant", "content": "sing \N{ANT}"}
    assert (speech.text, speech.breach) == (text, None)
    assert spoken(tokenizer, text, raw=True, stop="<turn|>").parts == {"thinking": None, "content": text}


def test_a_call_is_shown_as_it_is_and_read(tokenizer: Tokenizer) -> None:
    call = '<|tool_call>call:sing{what:<|"|>the<|"|>}<tool_call|>'
    speech = spoken(tokenizer, f"the {call}", stop="<|tool_response>")
    assert speech.parts["content"] == f"the {call}"
    assert [(call.name, call.arguments) for call in speech.tool_calls] == [("sing", {"what": "the"})]


def test_an_answer_that_breaks_the_format_is_shown_as_it_is(tokenizer: Tokenizer) -> None:
    speech = spoken(tokenizer, "the <channel|>ant<tool_call|>", stop="<turn|>")
    assert speech.parts == {"thinking": None, "content": "the <channel|>ant<tool_call|>"}
    assert speech.breach is not None
    assert speech.breach.startswith("answer, character 4: got <channel|>, which closes nothing")
    swallowed = spoken(tokenizer, "A<turn|>an", stop="<turn|>")  # A is a byte that comes with the token after it
    assert swallowed.parts["content"] == swallowed.text == "A<turn|>an"
    half = spoken(tokenizer, "the <|tool_call>call:sing{what", stop="<turn|>")
    assert half.parts["content"] == "the "
    assert half.breach is None
    bad = spoken(tokenizer, "<|tool_call>sing<tool_call|>the")
    assert bad.parts["content"] == "<|tool_call>sing<tool_call|>the"


def shown(tokenizer: Tokenizer, show: TextShow, text: str, finish: Finish = "stop") -> None:
    """Show an answer."""
    speech = Speech(tokenizer, raw=False)
    for token_id in tokenizer.encode(text):
        show.say(speech.add(Generated(id=token_id, logprob=0.0, finish=None)))
    show.say(speech.finish())
    figures = Figures(
        prompt_tokens=1200,
        reused_tokens=200,
        first_token_seconds=2.0,
        generated_tokens=11,
        decode_seconds=0.5,
        active_memory=2_340_000_000,
        peak_memory=99_000_000,
        finish=finish,
    )
    show.end(speech, figures, 7)


ANSWER = "<|channel>thought\nan ant\n<channel|>sing"


def test_thoughts_stay_out_of_a_pipe(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    shown(tokenizer, TextShow(), ANSWER)
    out, err = capsys.readouterr()
    assert out == "sing\n"
    assert err.splitlines() == [
        "an ant",
        "",
        "prompt: 1200 tokens (200 of them reused), first token after 2.00 s, 500.0 tokens/s",
        "answer: 11 tokens, 20.0 tokens/s, seed 7",
        "memory: 2.34 GB active, 99.0 MB at its peak",
    ]


def test_thoughts_are_dim_on_a_terminal(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown(tokenizer, TextShow(), ANSWER)
    out, _ = capsys.readouterr()
    plain = out.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert plain == "an ant\n\nsing\n"
    assert "\x1b[2mant\x1b[0m" in out.replace("\x1b[0m\x1b[2m", "").replace("an ant", "ant")
    assert out.endswith("sing\n")


def test_a_breach_is_told(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    shown(tokenizer, TextShow(), "a<channel|>", "cancelled")
    out, err = capsys.readouterr()
    assert out == "a<channel|>\n"
    assert err.startswith("the answer breaks the format; from there on it is shown unchanged: answer, character 1: got")
    assert ", interrupted, seed 7" in err


def test_json_of_a_whole_answer(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    show = JsonShow()
    show.loaded("model", 0.5)
    shown(tokenizer, show, ANSWER + "<|tool_call>call:sing{n:1}<tool_call|>")  # type: ignore[arg-type]
    (answer,) = answers(capsys.readouterr().out)
    assert (answer["thinking"], answer["breach"], answer["seed"]) == ("an ant", None, 7)
    assert answer["tool_calls"] == [{"name": "sing", "arguments": {"n": 1}}]
    assert (answer["prompt_tokens_per_second"], answer["tokens_per_second"]) == (500.0, 20.0)
