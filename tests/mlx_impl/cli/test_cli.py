"""The command, as a process on a miniature: what it prints, and what it refuses."""

import json
import os
import shutil
from pathlib import Path

import pytest

from mlx_impl.chat.prompt import render
from mlx_impl.chat.tokenizer import Tokenizer
from tests.support import speaking
from tests.support.speaking import GREEDY, TOKENS, USER, answers, asked, checkpoint, greedy, run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with PLE, so of the small templates; it never stops by itself."""
    return checkpoint(tmp_path_factory.mktemp("speaking") / "model", generation={"eos_token_id": [319]})


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    return Tokenizer.load(model)


def test_text_on_stdout_and_figures_on_stderr(model: Path, tokenizer: Tokenizer) -> None:
    code, out, err = run("generate", "--model", str(model), "hi there", "--max-tokens", "20", *GREEDY)
    assert code == 0
    prompt = render(USER, "small")
    assert out == tokenizer.decode(greedy(model, prompt, 20)) + "\n"
    lines = err.splitlines()
    assert lines[0].startswith(f"{model}: loaded in ")
    assert lines[1].startswith(f"prompt: {len(tokenizer.encode(prompt))} tokens, first token after ")
    assert lines[1].endswith(" tokens/s")
    assert lines[2].startswith("answer: 20 tokens, ")
    assert lines[2].endswith(" tokens/s, cut off at --max-tokens")
    assert lines[3].startswith("memory: ")
    assert len(lines) == 4


def test_json_on_stdout_and_nothing_else(model: Path, tokenizer: Tokenizer) -> None:
    got = asked("--model", str(model), "-", "--max-tokens", "12", "--prefill-step", "4", *GREEDY, stdin="hi there\n")
    assert got["ids"] == greedy(model, render(USER, "small"), 12)
    assert got["text"] == tokenizer.decode(got["ids"])
    assert (got["finish"], got["seed"], got["reused_tokens"], got["generated_tokens"]) == ("length", None, 0, 12)
    assert got["peak_memory"] > 0
    assert got["tokens_per_second"] > 0


@pytest.mark.slow
def test_options_of_the_prompt(model: Path, tokenizer: Tokenizer) -> None:
    common = ("--model", str(model), "hi there", "--max-tokens", "4", *GREEDY)
    system = [{"role": "system", "content": "be an ant"}]
    for options, prompt in (
        (("--thinking",), render(USER, "small", enable_thinking=True)),
        (("--system", "be an ant"), render(system + USER, "small")),
        (("--template", "large@2026-04-02"), render(USER, "large@2026-04-02")),
        (("--raw",), "<bos>hi there"),
    ):
        got = asked(*common, *options)
        assert got["prompt_tokens"] == len(tokenizer.encode(prompt))
        assert got["ids"] == greedy(model, prompt, 4)
    begun = asked(*common[:2], "<bos>hi there", *common[3:], "--raw")
    assert begun["ids"] == greedy(model, "<bos>hi there", 4)  # and no second <bos>


@pytest.mark.slow
def test_either_decoder_and_place_of_the_table_says_the_same(model: Path) -> None:
    common = ("--model", str(model), "hi there", "--max-tokens", "20", *GREEDY)
    options = ((), ("--plain",), ("--ple", "mapped"), ("--plain", "--ple", "mapped"))
    said = [asked(*common, *more) for more in options]
    assert [one["ids"] for one in said] == [greedy(model, render(USER, "small"), 20)] * 4
    assert said[2]["active_memory"] < said[0]["active_memory"]
    code, out, err = run("generate", "--model", str(model), "hi", "--ple", "disk")
    assert (code, out) == (2, "")
    assert "'disk' is not one of" in err


def test_the_template_is_that_of_the_size(tmp_path: Path) -> None:
    large = checkpoint(tmp_path / "large", "31b-mini")
    got = asked("--model", str(large), "hi there", "--max-tokens", "2", *GREEDY)
    assert got["prompt_tokens"] == len(Tokenizer.load(large).encode(render(USER, "large")))
    assert render(USER, "large") != render(USER, "small")


@pytest.mark.slow
def test_sampling_is_the_checkpoint_s_own_unless_it_is_said(tmp_path: Path) -> None:
    published = {"do_sample": True, "temperature": 1.0, "top_k": 64, "top_p": 0.95, "eos_token_id": [319]}
    sampling = checkpoint(tmp_path / "sampling", generation=published)
    common = ("--model", str(sampling), "hi there", "--max-tokens", "8", "--dtype", "float32")
    drawn = [asked(*common) for _ in range(2)]
    assert drawn[0]["seed"] != drawn[1]["seed"]
    assert drawn[0]["ids"] != drawn[1]["ids"]
    assert asked(*common, "--seed", str(drawn[0]["seed"]))["ids"] == drawn[0]["ids"]
    best = greedy(sampling, render(USER, "small"), 8)
    assert asked(*common, "--temperature", "0")["ids"] == best
    for one in (("--top-k", "1"), ("--top-p", "0.0001"), ("--min-p", "1")):
        assert asked(*common, *one)["ids"] == best
    penalty = asked(*common, "--temperature", "0", "--repetition-penalty", "1.9")["ids"]
    assert penalty != best


def test_a_stop_token_ends_the_answer_and_is_not_shown(tmp_path: Path, model: Path, tokenizer: Tokenizer) -> None:
    free = greedy(model, render(USER, "small"), 8)
    stops = checkpoint(tmp_path / "stops", generation={"eos_token_id": free[5]})
    assert free[5] not in free[:5]
    got = asked("--model", str(stops), "hi there", *GREEDY)
    assert (got["ids"], got["finish"]) == (free[:6], "stop")
    assert got["text"] == tokenizer.decode(free[:5])


@pytest.mark.slow
def test_a_prompt_cache_changes_nothing_but_the_work(model: Path, tmp_path: Path) -> None:
    """Past the window of 8: the file holds what the next prompt shares with this one, and so can be gone on from."""
    file = tmp_path / "cache"
    common = ("--model", str(model), "--max-tokens", "16", *GREEDY, "--system", "be an ant and sing the thing")
    kept = ("--prompt-cache", str(file))
    plain = {said: asked(*common, said) for said in ("hi there", "another")}
    first = asked(*common, "hi there", *kept)
    assert first["reused_tokens"] == 0
    assert os.listdir(tmp_path) == ["cache"]
    stored, when = file.read_bytes(), file.stat().st_mtime_ns
    system = render(
        [{"role": "system", "content": "be an ant and sing the thing"}], "small", add_generation_prompt=False
    )
    for said, want in plain.items():
        got = asked(*common, said, *kept)
        assert got["reused_tokens"] == len(Tokenizer.load(model).encode(system)) > 16
        assert got["ids"] == want["ids"]
        assert (file.read_bytes(), file.stat().st_mtime_ns) == (stored, when)
    assert first["ids"] == plain["hi there"]["ids"]
    # Without a system turn it is the prompt but for its last token, and a file of another prompt is replaced.
    for reused in (0, first["prompt_tokens"] - 1):
        got = asked(*common[:-2], "hi there", *kept)
        assert got["ids"] == greedy(model, render(USER, "small"), 16)
        assert got["reused_tokens"] == (0 if not reused else got["prompt_tokens"] - 1)
    assert file.read_bytes() != stored
    assert os.listdir(tmp_path) == ["cache"]


def test_a_conversation_goes_on_with_what_is_remembered(model: Path, tokenizer: Tokenizer) -> None:
    said = ["hi there", "the ant", "sing"]
    code, out, err = run("chat", "--model", str(model), "--max-tokens", "9", *GREEDY, "--json", stdin="\n".join(said))
    assert (code, err) == (0, "")
    got = answers(out)
    assert len(got) == 3
    messages: list[dict[str, str]] = []
    before = 0
    for answer, text in zip(got, said, strict=True):
        messages.append({"role": "user", "content": text})
        prompt = render(messages, "small")
        assert answer["prompt_tokens"] == len(tokenizer.encode(prompt))
        assert answer["ids"] == greedy(model, prompt, 9)
        assert answer["reused_tokens"] >= before  # all of the prompt before but its last token
        before = answer["prompt_tokens"] - 1
        messages.append({"role": "assistant", "content": answer["content"]})


def test_chat_in_text(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "cache"
    code, out, err = run(
        "chat", "--model", str(model), "--max-tokens", "3", "--prompt-cache", str(file), stdin="hi\nthe\n"
    )
    assert code == 0
    assert len(out.splitlines()) >= 2
    assert err.count("answer: 3 tokens") == 2
    assert os.listdir(tmp_path) == ["cache"]


def unreadable(tmp_path: Path, model: Path, *without: str, **changed: str) -> str:
    """A copy of the checkpoint without some files, or with others in their place."""
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    for name in without:
        (folder / name).unlink()
    for name, content in changed.items():
        (folder / f"{name}.json").write_text(content)
    return str(folder)


@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_code_2(model: Path, tmp_path: Path) -> None:
    (tmp_path / "no cache").write_text("no cache")
    big = "".join(chr(0x4E00 + n) for n in range(200))
    wide = json.loads((model / "tokenizer.json").read_text())
    wide["model"]["vocab"]["zz"] = 5000
    wide["model"]["merges"].append(["z", "z"])
    for number, (arguments, message) in enumerate(
        (
            (("--model", str(tmp_path / "none"), "hi"), "none/config.json: got no such file"),
            (
                ("--model", unreadable(tmp_path / "1", model, "tokenizer.json"), "hi"),
                "tokenizer.json: got no such file",
            ),
            (
                ("--model", unreadable(tmp_path / "2", model, "model.safetensors"), "hi"),
                "expected model.safetensors or",
            ),
            (("--model", unreadable(tmp_path / "3", model, tokenizer=big), "hi"), "tokenizer.json: got no JSON"),
            (("--model", unreadable(tmp_path / "4", model, tokenizer=json.dumps(wide)), "zz"), "ids["),
            (
                ("--model", unreadable(tmp_path / "5", model, generation_config="[]"), "hi"),
                "generation_config.json: got",
            ),
            (("--model", str(model), "hi", "--template", "tiny"), "template: got 'tiny'; expected one of small@"),
            (("--model", str(model), "hi", "--temperature", "-1"), "temperature: got -1.0"),
            (("--model", str(model), "hi", "--top-p", "nan"), "top_p: got nan"),
            (("--model", str(model), "hi", "--raw", "--system", "be"), "--raw: got --thinking, --system or --template"),
            (("--model", str(model), os.fsdecode(b"h\xff")), "messages[0].content: got the lone surrogate"),
            (("--model", str(model), "hi", "--prompt-cache", str(tmp_path / "no cache")), "a file that is broken"),
            (("--model", str(model), "hi", "--prompt-cache", str(tmp_path / "a" / "b")), "got a file in no folder"),
        )
    ):
        code, out, err = run("generate", *arguments)
        assert (code, out) == (2, ""), number
        *before, line = err.splitlines()
        assert message in line
        assert all(": loaded in " in one for one in before), err
    assert (tmp_path / "no cache").read_text() == "no cache"
    code, out, err = run("generate", "--model", str(model), "hi", "--top-k", "few")
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_an_empty_conversation_ends_at_once(model: Path) -> None:
    code, out, _ = run("chat", "--model", str(model), stdin="")
    assert (code, out) == (0, "")


def test_the_tokenizer_fits_the_miniature() -> None:
    assert len(TOKENS) == len(set(TOKENS)) == speaking.VOCAB == speaking.tokenizer().get_vocab_size()
